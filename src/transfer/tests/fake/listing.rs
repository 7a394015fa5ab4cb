//! Pages of a listing, as S3 makes them.

use std::collections::BTreeSet;

use super::Fake;
use crate::store::{ListPage, ListRequest, ListedObject};

impl Fake {
    pub(crate) fn listing_in_no_order() -> Self {
        Fake { lists_in_no_order: true, ..Fake::default() }
    }

    /// Keys of all objects, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.state().objects.keys().map(|key| key.to_string()).collect()
    }

    /// All LISTs since the last time this was asked.
    pub(crate) fn take_lists(&self) -> Vec<ListRequest> {
        std::mem::take(&mut self.state().lists)
    }

    pub(super) fn page(&self, request: &ListRequest) -> ListPage {
        let most = if request.max_keys == 0 { 1000 } else { usize::from(request.max_keys) };
        let mut state = self.state();
        state.lists.push(request.clone());
        let mut page = ListPage::default();
        let mut prefixes = BTreeSet::new();
        let after = request.continuation.as_deref().or(request.start_after.as_deref()).unwrap_or_default();
        for (key, object) in &state.objects {
            let Some(rest) = key.as_str().strip_prefix(&request.prefix) else { continue };
            let folded = rest.split_once('/').filter(|_| request.by_directory);
            let name = folded.map_or_else(|| key.to_string(), |(first, _)| format!("{}{first}/", request.prefix));
            if name.as_str() <= after || prefixes.contains(&name) {
                continue;
            }
            if page.objects.len() + prefixes.len() == most {
                page.next = page.objects.last().map(|last: &ListedObject| last.key.to_string());
                page.next = page.next.max(prefixes.last().cloned());
                break;
            }
            if folded.is_some() {
                prefixes.insert(name);
            } else {
                let version = object.info.version.clone();
                let storage_class = object.info.attributes.storage_class.clone();
                page.objects.push(ListedObject { key: key.clone(), version, storage_class });
            }
        }
        page.prefixes = prefixes.into_iter().collect();
        if self.lists_in_no_order {
            page.objects.reverse();
            page.prefixes.reverse();
        }
        page
    }
}
