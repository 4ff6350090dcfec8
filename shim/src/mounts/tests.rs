//! Real mounts, each test in a mount namespace of its own that ends with its thread.

use std::{fs, os::unix::fs::symlink, thread};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use super::*;

/// Runs `test` with a directory on a tmpfs that nobody else sees.
fn in_private(test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
            test(dir.path());
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn spec(kind: &str, source: &str, target: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|option| (*option).into()).collect();
    Mount { type_: kind.into(), source: source.into(), target: target.into(), options, ..Mount::default() }
}

fn bind(source: &Path, target: &str, options: &[&str]) -> Mount {
    spec("bind", source.to_str().unwrap(), target, options)
}

fn overlay(dir: &Path, lower: &str) -> Mount {
    for name in ["upper", "work"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let upper = format!("upperdir={}", upper.display());
    let work = format!("workdir={}", work.display());
    spec("overlay", "overlay", "", &["index=off", &work, &upper, &format!("lowerdir={lower}")])
}

fn mounted_at(point: &Path) -> usize {
    table::read().unwrap().iter().filter(|entry| entry.point == point).count()
}

fn mounted_under(dir: &Path) -> usize {
    table::read().unwrap().iter().filter(|entry| entry.point.starts_with(dir)).count()
}

#[test]
fn a_device_node_of_an_image_opens_nothing() {
    in_private(|dir| {
        let layers = [dir.join("layer"), dir.join("empty")];
        for layer in &layers {
            fs::create_dir(layer).unwrap();
        }
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&layers[0].join("null"), SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
        fs::File::open(layers[0].join("null")).expect("it opens where nothing forbids it");
        let target = dir.join("rootfs");
        let lower = format!("{}:{}", layers[0].display(), layers[1].display());
        for mounts in [
            bind(&layers[0], "", &["rbind", "rw"]),
            bind(&layers[0], "", &["bind", "ro", "dev"]),
            overlay(dir, &lower),
        ] {
            mount_all(&[mounts], &target).unwrap();
            let opened = fs::File::open(target.join("null")).map_err(|error| error.kind());
            assert_eq!(opened.err(), Some(io::ErrorKind::PermissionDenied));
            unmount_all(&target).unwrap();
        }
    });
}

#[test]
fn an_overlay_shows_its_layers_and_keeps_them_as_they_are() {
    in_private(|dir| {
        for layer in ["a", "b"] {
            fs::create_dir(dir.join(layer)).unwrap();
            fs::write(dir.join(layer).join("name"), layer).unwrap();
        }
        let rootfs = dir.join("rootfs");
        mount_all(&[overlay(dir, &format!("{0}/b:{0}/a", dir.display()))], &rootfs).unwrap();
        assert_eq!(fs::read_to_string(rootfs.join("name")).unwrap(), "b");
        fs::write(rootfs.join("name"), "c").unwrap();
        assert_eq!(fs::read_to_string(dir.join("b/name")).unwrap(), "b");
        assert_eq!(fs::read_to_string(dir.join("upper/name")).unwrap(), "c");
        unmount_all(&rootfs).unwrap();
        assert!(!rootfs.join("name").exists());
        unmount_all(&rootfs).unwrap();
    });
}

#[test]
fn an_overlay_of_more_layers_than_fit_a_page_has_them_all() {
    in_private(|dir| {
        let snapshots = dir.join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        let mut lower = Vec::new();
        for n in 0..120 {
            let layer = snapshots.join(format!("{n}/fs"));
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(format!("of-{n}")), "").unwrap();
            lower.push(layer.display().to_string());
        }
        let lower = lower.join(":");
        assert!(lower.len() > 2 * 4096, "{}", lower.len());
        let (rootfs, before) = (dir.join("rootfs"), std::env::current_dir().unwrap());
        mount_all(&[overlay(dir, &lower)], &rootfs).unwrap();
        for n in 0..120 {
            assert!(rootfs.join(format!("of-{n}")).exists(), "{n}");
        }
        assert_eq!(std::env::current_dir().unwrap(), before);
        unmount_all(&rootfs).unwrap();
    });
}

#[test]
fn a_read_only_bind_cannot_be_written() {
    in_private(|dir| {
        fs::create_dir(dir.join("image")).unwrap();
        let rootfs = dir.join("rootfs");
        mount_all(&[bind(&dir.join("image"), "", &["rbind", "ro", "nosuid"])], &rootfs).unwrap();
        let error = fs::write(rootfs.join("x"), "").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EROFS as i32));
        unmount_all(&rootfs).unwrap();
        mount_all(&[bind(&dir.join("image"), "", &["rbind", "rw"])], &rootfs).unwrap();
        fs::write(rootfs.join("x"), "").unwrap();
        unmount_all(&rootfs).unwrap();
    });
}

/// As containerd does, which sets no flag on a bind mount that is not `ro`.
#[test]
fn what_is_read_only_stays_so_where_it_is_bound() {
    in_private(|dir| {
        let image = dir.join("image");
        fs::create_dir(&image).unwrap();
        mount_all(&[bind(&image, "", &["bind", "ro"])], &image).unwrap();
        let rootfs = dir.join("rootfs");
        for options in [["bind", "rw"], ["rbind", "nosuid"]] {
            mount_all(&[bind(&image, "", &options)], &rootfs).unwrap();
            let error = fs::write(rootfs.join("x"), "").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::EROFS as i32), "{options:?}");
            unmount_all(&rootfs).unwrap();
        }
    });
}

#[test]
fn a_target_never_leaves_the_root_file_system() {
    in_private(|dir| {
        for made in ["image/inside/deep", "outside/deep", "volume"] {
            fs::create_dir_all(dir.join(made)).unwrap();
        }
        fs::write(dir.join("volume/here"), "").unwrap();
        symlink(dir.join("outside"), dir.join("image/absolute")).unwrap();
        symlink("../outside", dir.join("image/relative")).unwrap();
        symlink("/inside", dir.join("image/good")).unwrap();
        let rootfs = dir.join("rootfs");
        let with = |target: &str| {
            let done = mount_all(
                &[bind(&dir.join("image"), "", &["rbind"]), bind(&dir.join("volume"), target, &["bind"])],
                &rootfs,
            );
            let is_outside = mounted_under(&dir.join("outside")) > 0;
            (done, is_outside)
        };
        for target in ["absolute", "relative", "../outside", "relative/deep", "/absolute/deep"] {
            let (done, is_outside) = with(target);
            assert!(done.is_err() && !is_outside, "{target}");
            assert_eq!(mounted_under(&rootfs), 0, "{target}");
        }
        // Links mean what they mean to the container.
        with("good/deep").0.unwrap();
        assert!(rootfs.join("inside/deep/here").exists());
        unmount_all(&rootfs).unwrap();
        assert_eq!(mounted_under(&rootfs), 0);
    });
}

#[test]
fn a_failure_takes_away_what_was_mounted_and_nothing_else() {
    in_private(|dir| {
        for made in ["image/data", "before", "rootfs"] {
            fs::create_dir_all(dir.join(made)).unwrap();
        }
        let rootfs = dir.join("rootfs");
        mount_all(&[bind(&dir.join("before"), "", &["bind"])], &rootfs).unwrap();
        let error = mount_all(
            &[
                bind(&dir.join("image"), "", &["rbind", "ro"]),
                spec("tmpfs", "tmpfs", "/data", &["size=1m"]),
                spec("nosuchfs", "what", "/data", &[]),
            ],
            &rootfs,
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("nosuchfs") && error.contains("rootfs/data"), "{error}");
        assert_eq!(mounted_under(&rootfs), 1);
        let refused = mount_all(&[spec("ext4", "/x.img", "", &["loop"])], &rootfs).unwrap_err();
        assert!(
            matches!(&refused, Error::Invalid(why) if why.contains("loop") && why.contains("/x.img")),
            "{refused}"
        );
        assert_eq!(mounted_under(&rootfs), 1);
    });
}

#[test]
fn everything_stacked_and_below_is_unmounted_but_nothing_by_a_link() {
    in_private(|dir| {
        let rootfs = dir.join("root fs");
        fs::create_dir_all(rootfs.join("sub dir")).unwrap();
        mount_all(&[spec("tmpfs", "tmpfs", "sub dir", &[])], &rootfs).unwrap();
        mount_all(&[spec("tmpfs", "tmpfs", "", &[]), spec("tmpfs", "tmpfs", "", &[])], &rootfs).unwrap();
        fs::create_dir(rootfs.join("top")).unwrap();
        mount_all(&[spec("tmpfs", "tmpfs", "top", &[])], &rootfs).unwrap();
        assert_eq!((mounted_at(&rootfs), mounted_under(&rootfs)), (2, 4));
        symlink(&rootfs, dir.join("link")).unwrap();
        unmount_all(&dir.join("link")).unwrap();
        assert_eq!(mounted_under(&rootfs), 4);
        unmount_all(&rootfs).unwrap();
        assert_eq!(mounted_under(&rootfs), 0);
        unmount_all(&dir.join("missing")).unwrap();
        unmount_all(&dir.join("missing/deeper")).unwrap();
    });
}
