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

impl std::fmt::Display for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.algorithm)?;
        self.key.iter().try_for_each(|key| write!(f, " with the key {key}"))
    }
}

/// The encryption that is asked for all that is written (`sse`, `sse_kms_key_id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// `AES256`, `aws:kms`, `aws:kms:dsse`
    pub algorithm: String,
    /// ARN, id or alias of the KMS key; `None` is the account's own.
    pub key: Option<String>,
}

impl Requested {
    /// Whether what a store tells of an object is this. It tells the ARN of a key, whatever that was named by: an alias can't be
    /// compared.
    pub fn is_met_by(&self, told: &Encryption) -> bool {
        let key = self.key.as_deref().filter(|key| !key.contains("alias/"));
        told.algorithm == self.algorithm
            && key.is_none_or(|key| {
                told.key.as_deref().is_some_and(|told| told == key || told.rsplit('/').next() == Some(key))
            })
    }
}

impl std::fmt::Display for Requested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.algorithm)?;
        self.key.iter().try_for_each(|key| write!(f, " with the key {key}"))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_by_its_arn_and_by_its_id() {
        let arn = "arn:aws:kms:eu-west-3:1:key/abc";
        let told = |algorithm: &str, key: Option<&str>| Encryption {
            algorithm: algorithm.into(),
            key: key.map(str::to_owned),
            bucket_key: false,
        };
        for (asked, met) in [
            (None, true),
            (Some(arn), true),
            (Some("abc"), true),
            (Some("alias/any"), true),
            (Some("arn:aws:kms:eu-west-3:1:alias/any"), true),
            (Some("bc"), false),
            (Some("arn:aws:kms:eu-west-3:2:key/abc"), false),
        ] {
            let asked = Requested { algorithm: "aws:kms".into(), key: asked.map(str::to_owned) };
            assert_eq!(asked.is_met_by(&told("aws:kms", Some(arn))), met, "{asked}");
            assert!(!asked.is_met_by(&told("AES256", Some(arn))) && !asked.is_met_by(&told("aws:kms:dsse", Some(arn))));
        }
        let asked = Requested { algorithm: "aws:kms".into(), key: Some(arn.into()) };
        assert!(!asked.is_met_by(&told("aws:kms", None)));
    }
}
