//! What an object has beside its bytes and its plain headers: encryption, and tags.

/// How the store encrypts an object (`x-amz-server-side-encryption` and what belongs to it).
///
/// It is named again in each request that writes the object anew, also where it is plain `AES256`: a request that names none
/// gets the bucket's default, which may be another (API reference, PutObject and CopyObject).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// `AES256`, `aws:kms`, `aws:kms:dsse`, or what the store calls it.
    pub algorithm: String,
    /// The KMS key, as the store names it.
    pub key: Option<String>,
    /// A key of the bucket stands between (S3 Bucket Keys).
    pub bucket_key: bool,
}

/// The tags of an object, which are not told with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tags {
    /// There are none, or the caller may not know of them.
    #[default]
    None,
    /// There are some: which, [`super::ObjectStore::tags`] tells. Written so, an object gets none.
    Some,
    /// These, names and values.
    Known(Vec<(String, String)>),
}

impl Tags {
    /// As HEAD and GET tell of them: by number.
    pub fn counted(count: Option<i32>) -> Self {
        if count.is_some_and(|count| count > 0) { Tags::Some } else { Tags::None }
    }

    /// These; none is `None`.
    pub fn of(tags: Vec<(String, String)>) -> Self {
        if tags.is_empty() { Tags::None } else { Tags::Known(tags) }
    }

    /// Names and values, as far as they are known.
    pub fn known(&self) -> &[(String, String)] {
        match self {
            Tags::Known(tags) => tags,
            Tags::None | Tags::Some => &[],
        }
    }
}
