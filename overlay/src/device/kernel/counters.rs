//! What the kernel's WireGuard says that it dropped, as the counters of its link (`proc_pid_net(5)`, `net/dev`). Pure.

use super::Drops;

/// The columns of a link, after its name.
const RX_DROPPED: usize = 3;
/// Of WireGuard: from an address that is not the peer's (`rx_frame_errors`), or of a wrong length.
const RX_FRAME: usize = 5;
/// No peer has the destination, or it has no endpoint.
const TX_ERRORS: usize = 10;
/// Waited too long for a handshake.
const TX_DROPPED: usize = 11;

/// The drops of the link `name` in such a `table`; `None` when it is not there.
pub(super) fn drops(table: &str, name: &str) -> Option<Drops> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let counters: Vec<u64> = line.split_ascii_whitespace().filter_map(|text| text.parse().ok()).collect();
    let at = |column: usize| counters.get(column).copied();
    Some(Drops {
        wrong_source: at(RX_FRAME)?,
        no_route: at(TX_ERRORS)?,
        queue: at(TX_DROPPED)?,
        link: at(RX_DROPPED)?,
        ..Drops::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n\
            wg0: 1000 20 3 4 0 5 0 0 2000 30 6 7 0 0 0 0\nwg01: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n";
        let expected = Drops { wrong_source: 5, no_route: 6, queue: 7, link: 4, ..Drops::default() };
        assert_eq!(drops(table, "wg0"), Some(expected));
        assert_eq!((drops(table, "wg"), drops("wg0: 1 2 3", "wg0")), (None, None));
    }
}
