//! Uploads that are begun.

use super::{Fake, Upload};
use crate::types::UploadId;

impl Fake {
    pub(super) fn open_upload(&self, upload: Upload) -> UploadId {
        let mut state = self.state();
        state.versions += 1;
        let id = UploadId::new(format!("u{}", state.versions));
        state.uploads.insert(id.clone(), upload);
        id
    }
}
