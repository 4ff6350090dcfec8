use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::{
    super::{netmap::Standing, owner::Owner},
    *,
};

async fn standing(store: &Store) -> Standing {
    store.standing(&peer_id(1), NOW).await.unwrap().unwrap()
}

async fn an_epoch_lasts_until_the_database_is_adopted(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 5).await;
    enroll(&store, 1, "a", &token).await.unwrap();
    let first = standing(&store).await.version;
    store.close().await;
    let (store, other) = (place.store(POOL).await, place.store(POOL).await);
    assert_eq!(standing(&store).await.version, first);
    let map = store.netmap(&peer_id(1), NOW).await.unwrap().unwrap();
    assert_eq!(map.version(), first);

    let owner = Owner {
        operator: "O".into(),
        system_account: "S".into(),
        account: "A".into(),
        authority: "ca".into(),
        relay: "R".into(),
    };
    store.adopt(&owner).await.unwrap();
    let adopted = standing(&other).await.version;
    assert_ne!(adopted.epoch, first.epoch);
    assert_eq!(adopted.generation, first.generation);
}

/// Of SQLite with our backup, of Postgres as docs/operating.md says.
async fn what_is_restored_counts_in_another_epoch(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 9).await;
    enroll(&store, 1, "a", &token).await.unwrap();
    let before = standing(&store).await.version;
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup").display().to_string();
    let copied = store.copy_to(Path::new(&backup)).await.unwrap();
    assert_eq!(copied, matches!(place.database, Database::Sqlite(_)));
    store.close().await;

    let mut epochs = BTreeSet::from([before.epoch]);
    for time in ["first", "second"] {
        let restored = match &place.database {
            Database::Sqlite(_) => {
                let to = dir.path().join(time);
                fs::copy(&backup, &to).unwrap();
                Database::Sqlite(to)
            }
            Database::Postgres(url) => {
                if time == "first" {
                    run(&["pg_dump", "-Fc", "-f", &backup, url.exposed()]);
                }
                run(&["pg_restore", "--clean", "--if-exists", "-d", url.exposed(), &backup]);
                place.database.clone()
            }
        };
        let store = Store::open(&restored, POOL.parse().unwrap(), QUARANTINE).await.unwrap();
        let version = standing(&store).await.version;
        assert_eq!(version.generation, before.generation);
        assert!(epochs.insert(version.epoch), "the {time} time: {epochs:?}");
        store.close().await;
    }
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{words:?}");
}

contract! { an_epoch_lasts_until_the_database_is_adopted, what_is_restored_counts_in_another_epoch }
