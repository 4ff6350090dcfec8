//! An overlay of many layers: mount(2) takes one page of options, and the paths of some fifty of containerd's snapshots
//! fill it. What their paths have in common is then taken out, and the mount made from that directory.

/// A page, less what the kernel needs to end the text.
const LIMIT: usize = 4095;
const LOWER: &str = "lowerdir=";

/// The data of a mount, and where relative paths in it begin.
pub(super) fn fit(kind: &str, options: &[&str]) -> Result<(String, Option<String>), String> {
    let whole = options.join(",");
    if whole.len() <= LIMIT {
        return Ok((whole, None));
    }
    let too_long =
        || format!("its options are {} bytes, and the kernel takes {LIMIT}; use fewer layers", whole.len());
    if kind != "overlay" {
        return Err(too_long());
    }
    let lower = options.iter().find_map(|option| option.strip_prefix(LOWER)).ok_or_else(too_long)?;
    // An escaped colon is part of a name, and taking names apart is then no longer splitting.
    if lower.contains('\\') {
        return Err(too_long());
    }
    let layers: Vec<&str> = lower.split(':').collect();
    let from = common_directory(&layers).ok_or_else(too_long)?;
    let short: Vec<String> = options
        .iter()
        .map(|option| match option.strip_prefix(LOWER) {
            Some(_) => {
                let names: Vec<&str> = layers.iter().map(|layer| &layer[from.len()..]).collect();
                format!("{LOWER}{}", names.join(":"))
            }
            None => (*option).to_owned(),
        })
        .collect();
    let data = short.join(",");
    if data.len() <= LIMIT { Ok((data, Some(from.to_owned()))) } else { Err(too_long()) }
}

/// The longest path, with its final slash, by which all of them begin and in which none of them is. `None` where that is only the root:
/// it would save nothing.
fn common_directory<'a>(layers: &[&'a str]) -> Option<&'a str> {
    let (first, others) = layers.split_first()?;
    let mut common = first.len();
    for layer in others {
        common = first.bytes().zip(layer.bytes()).take(common).take_while(|(a, b)| a == b).count();
    }
    let end = first.as_bytes()[..common].iter().rposition(|byte| *byte == b'/')? + 1;
    let is_useful = first.starts_with('/') && end > 1 && layers.iter().all(|layer| layer.len() > end);
    is_useful.then(|| &first[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(count: usize) -> String {
        let snapshot =
            |n| format!("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/{n}/fs");
        (0..count).map(snapshot).collect::<Vec<_>>().join(":")
    }

    #[test]
    fn few_layers_stay_as_they_are() {
        let lower = format!("lowerdir={}", layers(40));
        assert_eq!(fit("overlay", &["workdir=/w", &lower]), Ok((format!("workdir=/w,{lower}"), None)));
    }

    #[test]
    fn many_layers_are_named_from_their_directory() {
        let lower = format!("lowerdir={}", layers(400));
        let (data, from) = fit("overlay", &["workdir=/w", &lower, "index=off"]).unwrap();
        assert_eq!(
            from.as_deref(),
            Some("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/")
        );
        assert!(
            data.starts_with("workdir=/w,lowerdir=0/fs:1/fs:") && data.ends_with(":399/fs,index=off"),
            "{data}"
        );
        assert!(data.len() <= LIMIT);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_never_cut_off() {
        let lower = format!("lowerdir={}", layers(1000));
        assert!(fit("overlay", &[&lower]).unwrap_err().contains("fewer layers"));
        assert!(fit("tmpfs", &[&"x".repeat(4096)]).is_err());
        let escaped = format!("lowerdir={}\\:/var/b", layers(60));
        assert!(fit("overlay", &[&escaped]).is_err());
        let apart = format!("lowerdir=/{}:/{}", "a".repeat(2100), "b".repeat(2100));
        assert!(fit("overlay", &[&apart]).is_err());
    }

    #[test]
    fn the_common_directory_ends_between_names() {
        assert_eq!(common_directory(&["/s/10/fs", "/s/11/fs", "/s/1/fs"]), Some("/s/"));
        assert_eq!(common_directory(&["/s/10/fs", "/s/10/work"]), Some("/s/10/"));
        assert_eq!(common_directory(&["/s/10", "/s/10"]), Some("/s/"));
        assert_eq!(common_directory(&["/s/", "/s/1"]), None);
        assert_eq!(common_directory(&["/a/x", "/b/x"]), None);
        assert_eq!(common_directory(&["s/1", "s/2"]), None);
    }
}
