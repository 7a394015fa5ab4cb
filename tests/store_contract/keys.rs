//! Keys that are easy to get wrong.

use pailfs::error::Error;
use pailfs::store::{Attributes, CopyRequest, UploadBody};
use pailfs::types::Expect;

use crate::world::{Ability, KEPT, on_every_store};

const ODD: &[&str] = &[
    "with space",
    "two  spaces",
    "plus+plus",
    "per%cent",
    "%20",
    "%2B",
    "ünïcödé",
    "e\u{301} decomposed",
    "日本語",
    "🦀",
    "quo\"te",
    "apo'strophe",
    "back\\slash",
    "a?b",
    "a#b",
    "a&b=c",
    "<angle>",
    "semi;colon:at@",
    "tilde~star*",
    "dir with space/and+plus",
    ".hidden",
    "trailing.",
    "{brace}[bracket]|pipe^",
];

#[test]
fn odd_keys_work_in_every_call() {
    on_every_store(|world| async move {
        for name in ODD {
            let key = world.key(name);
            let version = world.put(name, name.as_bytes()).await;
            assert_eq!(world.store.head(&key).await.unwrap().version.etag, version.etag, "{name}");
            assert_eq!(world.bytes(name).await, name.as_bytes(), "{name}");
            let copied = format!("copies/{name}");
            let request = CopyRequest {
                source: key,
                source_etag: version.etag,
                target: world.key(&copied),
                expect: Expect::Any,
                attributes: KEPT,
            };
            world.store.copy(request).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(world.bytes(&copied).await, name.as_bytes(), "{name}");
        }
        let mut expected: Vec<String> = ODD.iter().map(|name| (*name).to_owned()).collect();
        expected.extend(ODD.iter().map(|name| format!("copies/{name}")));
        expected.sort();
        let listed = world.names(&world.list("", false, 7).await);
        assert_eq!(listed, expected);

        let (first, rest) = ODD.split_at(4);
        for name in first {
            world.store.delete(&world.key(name), None).await.unwrap();
        }
        let mut keys: Vec<_> = rest.iter().map(|name| world.key(name)).collect();
        keys.extend(ODD.iter().map(|name| world.key(&format!("copies/{name}"))));
        let failed = world.store.delete_many(&keys).await.unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        assert!(world.names(&world.list("", false, 0).await).is_empty());
    });
}

#[test]
fn odd_prefixes_are_listed() {
    on_every_store(|world| async move {
        for dir in ["a b", "c+d", "e%f", "ü", "g?h", "i#j"] {
            world.put(&format!("{dir}/x"), "x").await;
            let page = &world.list(&format!("{dir}/"), true, 0).await;
            assert_eq!(world.names(page), [format!("{dir}/x")]);
        }
        let pages = world.list("", true, 2).await;
        let prefixes: Vec<_> = pages.iter().flat_map(|page| &page.prefixes).cloned().collect();
        let expected = ["a b", "c+d", "e%f", "g?h", "i#j", "ü"].map(|dir| format!("{}{dir}/", world.prefix()));
        assert_eq!(prefixes, expected);
    });
}

#[test]
fn a_directory_marker_is_an_object() {
    on_every_store(|world| async move {
        world.put("dir/", "").await;
        world.put("dir/child", "x").await;
        assert_eq!(world.store.head(&world.key("dir/")).await.unwrap().version.size, 0);
        assert_eq!(world.names(&world.list("dir/", true, 0).await), ["dir/", "dir/child"]);
        assert!(matches!(world.store.head(&world.key("dir")).await, Err(Error::NotFound)));
        world.store.delete(&world.key("dir/child"), None).await.unwrap();
        world.store.delete(&world.key("dir/"), None).await.unwrap();
        assert!(world.names(&world.list("", false, 0).await).is_empty());
    });
}

#[test]
fn control_characters_survive() {
    on_every_store(|world| async move {
        if !world.has(Ability::ControlCharacters) {
            return;
        }
        let names = ["bell\u{7}", "line\nbreak", "tab\tbed"];
        for name in names {
            world.put(name, "x").await;
        }
        assert_eq!(world.names(&world.list("", false, 0).await), names);
        let failed = world.store.delete_many(&names.map(|name| world.key(name))).await.unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        assert!(world.names(&world.list("", false, 0).await).is_empty());
    });
}

#[test]
fn a_file_and_a_directory_may_share_a_name() {
    on_every_store(|world| async move {
        if !world.has(Ability::FlatNamespace) {
            return;
        }
        world.put("a", "file").await;
        world.put("a/b", "below").await;
        let page = &world.list("", true, 0).await[0];
        assert_eq!((page.objects.len(), page.prefixes.len()), (1, 1));
        assert_eq!(world.bytes("a").await, "file");
        assert_eq!(world.bytes("a/b").await, "below");
    });
}

#[test]
fn keys_that_are_no_paths_are_listed() {
    on_every_store(|world| async move {
        if !world.has(Ability::SecondSlashes) {
            return;
        }
        let names = ["../b", "./a", "a//b", "c/."];
        for name in names {
            world.put(name, name).await;
        }
        assert_eq!(world.names(&world.list("", false, 0).await), names);
        for name in names {
            assert_eq!(world.bytes(name).await, name);
        }
    });
}

#[test]
fn the_longest_key_works_and_a_longer_one_does_not() {
    on_every_store(|world| async move {
        if !world.has(Ability::LongComponents) {
            return;
        }
        let longest = "k".repeat(1024 - world.prefix().len());
        world.put(&longest, "x").await;
        assert_eq!(world.names(&world.list("", false, 0).await), std::slice::from_ref(&longest));
        let body = UploadBody::Memory("x".into());
        let longer = world.key(&format!("{longest}k"));
        let refused = world.store.put(&longer, body, &Attributes::default(), &Expect::Any).await;
        assert!(matches!(refused, Err(Error::NameTooLong)), "{refused:?}");
    });
}
