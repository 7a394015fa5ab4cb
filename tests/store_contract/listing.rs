//! Listings.

use pailfs::store::ListRequest;

use crate::world::on_every_store;

#[test]
fn a_listing_names_versions() {
    on_every_store(|world| async move {
        let version = world.put("a", "five!").await;
        let pages = world.list("", false, 0).await;
        let listed = &pages[0].objects[0];
        assert_eq!(listed.key, world.key("a"));
        assert!(listed.version.same_bytes(&version));
        assert_eq!(listed.storage_class, None);
        assert_eq!(listed.version.modified, world.store.head(&world.key("a")).await.unwrap().version.modified);
    });
}

#[test]
fn an_empty_listing_is_one_empty_page() {
    on_every_store(|world| async move {
        let pages = world.list("nothing/", true, 0).await;
        assert_eq!(pages.len(), 1);
        assert!(pages[0].objects.is_empty() && pages[0].prefixes.is_empty());
    });
}

#[test]
fn long_listings_come_in_pages_in_order() {
    on_every_store(|world| async move {
        let names: Vec<String> = (0..1100).map(|i| format!("{:02}/{i:04}", i / 100)).collect();
        for some in names.chunks(32) {
            futures_util::future::join_all(some.iter().map(|name| world.put(name, name.clone()))).await;
        }
        let flat = world.list("", false, 0).await;
        assert_eq!(flat.iter().map(|page| page.objects.len()).collect::<Vec<_>>(), [1000, 100]);
        assert_eq!(world.names(&flat), names);
        let short = world.list("", false, 300).await;
        assert_eq!(short.len(), 4);
        assert_eq!(world.names(&short), names);

        let directories: Vec<String> = (0..11).map(|i| format!("{}{i:02}/", world.prefix())).collect();
        for max_keys in [0, 1, 3] {
            let pages = world.list("", true, max_keys).await;
            assert!(pages.iter().all(|page| page.objects.is_empty()));
            let found: Vec<String> = pages.iter().flat_map(|page| page.prefixes.clone()).collect();
            assert_eq!(found, directories);
        }
        assert_eq!(world.names(&world.list("03/", true, 64).await), names[300..400]);

        let keys: Vec<_> = names.iter().map(|name| world.key(name)).collect();
        for some in keys.chunks(1000) {
            assert!(world.store.delete_many(some).await.unwrap().is_empty());
        }
        assert!(world.names(&world.list("", false, 0).await).is_empty());
    });
}

#[test]
fn objects_and_directories_are_told_apart_page_by_page() {
    on_every_store(|world| async move {
        for name in ["a", "b/1", "b/2", "c", "d/1", "e"] {
            world.put(name, "x").await;
        }
        for max_keys in [0, 1, 2, 4] {
            let pages = world.list("", true, max_keys).await;
            assert_eq!(world.names(&pages), ["a", "c", "e"], "max_keys {max_keys}");
            let prefixes: Vec<String> = pages.iter().flat_map(|page| page.prefixes.clone()).collect();
            assert_eq!(prefixes, [format!("{}b/", world.prefix()), format!("{}d/", world.prefix())]);
        }
    });
}

#[test]
fn a_listing_starts_after_a_key() {
    on_every_store(|world| async move {
        for name in ["a", "b", "c"] {
            world.put(name, "x").await;
        }
        let request = ListRequest {
            prefix: world.prefix().to_owned(),
            start_after: Some(world.key("a").as_str().to_owned()),
            ..ListRequest::default()
        };
        let page = world.store.list(request).await.unwrap();
        assert_eq!(world.names(&[page]), ["b", "c"]);
    });
}
