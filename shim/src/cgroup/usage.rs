//! What the sandbox itself counts, and the envelope of all metrics.

use containerd_shim_protos::protobuf::{Message, well_known_types::any::Any};
use serde::Deserialize;

use crate::error::{Error, Result};

/// What a sandbox counts for one of its containers. Releases of runsc before 2023 tell the memory of the whole sandbox for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time of processors, in nanoseconds; runsc divides what the host counted by what the sandbox did.
    pub cpu: u64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Processes.
    pub processes: u64,
}

impl Usage {
    /// From the standard output of `runsc events --stats <id>`.
    ///
    /// # Errors
    /// [`Error::Runsc`] for another answer.
    pub fn from_events(output: &[u8]) -> Result<Self> {
        let event = match serde_json::from_slice::<Event>(output) {
            Ok(event) if event.kind == "stats" => event.data,
            Ok(event) => Err(format!("an event {:?} instead of statistics", event.kind))
                .map_err(|reason| Error::Runsc { verb: "events", reason })?,
            Err(error) => return Err(Error::Runsc { verb: "events", reason: error.to_string() }),
        };
        Ok(Self {
            cpu: event.cpu.usage.total,
            memory: event.memory.usage.usage,
            processes: event.pids.current,
        })
    }
}

/// In the form that runc gave it (`runsc/boot/events.go`): what is 0 is left out.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    cpu: Cpu,
    memory: Memory,
    pids: Pids,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cpu {
    usage: CpuUsage,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CpuUsage {
    total: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Memory {
    usage: MemoryUsage,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MemoryUsage {
    usage: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pids {
    current: u64,
}

/// containerd finds the type by this bare name (`typeurl`).
pub(super) fn pack(type_url: &str, message: &impl Message) -> Result<Any> {
    let value =
        message.write_to_bytes().map_err(|error| Error::io(format!("encode {type_url}"))(error.into()))?;
    Ok(Any { type_url: type_url.into(), value, ..Any::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runsc_prints_is_understood_and_nothing_else() {
        let busy = br#"{"type":"stats","id":"b","data":{"cpu":{"usage":{"total":1408112260}},"memory":{"usage":{"limit":0,"usage":4059136,"failcnt":0},
            "swap":{"limit":0,"failcnt":0}},"pids":{"current":1},"network_interfaces":[{"Name":"lo","RxBytes":0}]}}
            "#;
        let usage = Usage { cpu: 1_408_112_260, memory: 4_059_136, processes: 1 };
        assert_eq!(Usage::from_events(busy).unwrap(), usage);
        let idle = br#"{"type":"stats","id":"a","data":{"cpu":{"usage":{}},"memory":{"usage":{"limit":0,"failcnt":0}},"pids":{}}}"#;
        assert_eq!(Usage::from_events(idle).unwrap(), Usage::default());
        for other in [&b""[..], b"{}", br#"{"type":"oom"}"#, b"container not found"] {
            assert!(Usage::from_events(other).is_err());
        }
    }
}
