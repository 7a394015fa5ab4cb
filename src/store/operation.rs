//! Names of the operations, for decorators that count or break them.

/// One method of [`super::ObjectStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// HEAD.
    Head,
    /// GetObjectTagging.
    Tags,
    /// One page of a listing.
    List,
    /// GET.
    Get,
    /// PUT.
    Put,
    /// CreateMultipartUpload.
    CreateUpload,
    /// UploadPart.
    UploadPart,
    /// UploadPartCopy.
    UploadPartCopy,
    /// ListParts.
    ListParts,
    /// CompleteMultipartUpload.
    CompleteUpload,
    /// AbortMultipartUpload.
    AbortUpload,
    /// CopyObject.
    Copy,
    /// DeleteObject.
    Delete,
    /// DeleteObjects.
    DeleteMany,
    /// RenameObject.
    Rename,
}

impl Operation {
    /// All of them, in the order of their declaration.
    pub const ALL: [Operation; 15] = [
        Operation::Head,
        Operation::Tags,
        Operation::List,
        Operation::Get,
        Operation::Put,
        Operation::CreateUpload,
        Operation::UploadPart,
        Operation::UploadPartCopy,
        Operation::ListParts,
        Operation::CompleteUpload,
        Operation::AbortUpload,
        Operation::Copy,
        Operation::Delete,
        Operation::DeleteMany,
        Operation::Rename,
    ];

    /// What S3 calls it.
    pub fn s3_name(self) -> &'static str {
        match self {
            Operation::Head => "HeadObject",
            Operation::Tags => "GetObjectTagging",
            Operation::List => "ListObjectsV2",
            Operation::Get => "GetObject",
            Operation::Put => "PutObject",
            Operation::CreateUpload => "CreateMultipartUpload",
            Operation::UploadPart => "UploadPart",
            Operation::UploadPartCopy => "UploadPartCopy",
            Operation::CompleteUpload => "CompleteMultipartUpload",
            Operation::ListParts => "ListParts",
            Operation::AbortUpload => "AbortMultipartUpload",
            Operation::Copy => "CopyObject",
            Operation::Delete => "DeleteObject",
            Operation::DeleteMany => "DeleteObjects",
            Operation::Rename => "RenameObject",
        }
    }
}
