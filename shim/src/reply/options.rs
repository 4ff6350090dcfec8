//! The runtime's options: `runtimeoptions.v1.Options`, which containerd gives to every runtime but runc, and the one of runc's that
//! is not about runc.

use std::path::PathBuf;

use containerd_shim_protos::{
    protobuf::{CodedInputStream, Message as _, Result, well_known_types::any::Any},
    shim::oci,
};

const OURS: &str = "runtimeoptions.v1.Options";
const RUNC: &str = "containerd.runc.v1.Options";

/// What they say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Where `shim.toml` is.
    pub config_path: Option<PathBuf>,
    /// Its text, in place of a path.
    pub config_body: Option<Vec<u8>>,
    /// The control group for the shim.
    pub shim_cgroup: Option<PathBuf>,
}

impl Options {
    /// The first of each kind counts. `ctr` leaves type names out.
    pub(super) fn read<'a>(messages: impl IntoIterator<Item = &'a Any>) -> Self {
        let mut options = Self::default();
        for any in messages {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            if name.is_empty() || name == OURS || name.ends_with(&format!(".{OURS}")) {
                if let Ok((path, body)) = runtime_options(&any.value) {
                    options.config_path = options.config_path.or(path);
                    options.config_body = options.config_body.or(body);
                }
            } else if name == RUNC
                && let Ok(runc) = oci::Options::parse_from_bytes(&any.value)
            {
                let group = Some(runc.shim_cgroup).filter(|group| !group.is_empty());
                options.shim_cgroup = options.shim_cgroup.or(group.map(PathBuf::from));
            }
        }
        options
    }
}

/// Field 1 names a type, which says nothing to us; 2 is a path, 3 a file's text.
fn runtime_options(bytes: &[u8]) -> Result<(Option<PathBuf>, Option<Vec<u8>>)> {
    let (mut path, mut body) = (None, None);
    let mut input = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            0x12 => path = Some(input.read_string()?).filter(|path| !path.is_empty()).map(PathBuf::from),
            0x1a => body = Some(input.read_bytes()?).filter(|body| !body.is_empty()),
            other => skip(other, &mut input)?,
        }
    }
    Ok((path, body))
}

fn skip(tag: u32, input: &mut CodedInputStream<'_>) -> Result<()> {
    containerd_shim_protos::protobuf::rt::skip_field_for_tag(tag, input)
}
