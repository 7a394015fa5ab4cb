//! The S3 trait: which function answers which operation.
//!
//! Owns nothing but the table, and the operations on buckets, which are too small for a file of their own.

use super::service::{Shared, WrongRange};
use super::state::{BucketState, now};
use super::{copy, listing, multipart, objects};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use std::sync::Arc;

/// The region that a bucket without a constraint is in.
const HOME_REGION: &str = "us-east-1";

/// Answers S3 operations from memory.
pub(super) struct Backend {
    shared: Arc<Shared>,
}

impl Backend {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

type Answer<T> = S3Result<S3Response<T>>;

#[async_trait::async_trait]
impl S3 for Backend {
    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let buckets = self.shared.state.lock();
        let listed = buckets.by_name.iter().map(|(name, bucket)| Bucket {
            name: Some(name.clone()),
            creation_date: bucket.created.map(Timestamp::from),
            bucket_region: Some(self.shared.region.clone()),
        });
        let output = ListBucketsOutput { buckets: Some(listed.collect()), ..ListBucketsOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        let name = req.input.bucket;
        let asked = req.input.create_bucket_configuration.and_then(|place| place.location_constraint);
        if asked.as_ref().map_or(HOME_REGION, |place| place.as_str()) != self.shared.region {
            return Err(s3_error!(IllegalLocationConstraintException, "The constraint is not for this region."));
        }
        let mut buckets = self.shared.state.lock();
        if buckets.by_name.contains_key(&name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        let location = Some(format!("/{name}"));
        buckets.by_name.insert(name, BucketState { created: Some(now()), ..BucketState::default() });
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.shared.state.lock().bucket(&req.input.bucket)?;
        let bucket_region = Some(self.shared.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        let mut buckets = self.shared.state.lock();
        if !buckets.bucket(&req.input.bucket)?.objects.is_empty() {
            return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
        }
        buckets.by_name.remove(&req.input.bucket);
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn get_bucket_location(&self, req: S3Request<GetBucketLocationInput>) -> Answer<GetBucketLocationOutput> {
        self.shared.state.lock().bucket(&req.input.bucket)?;
        // The first region has no name in this reply.
        let location_constraint =
            (self.shared.region != "us-east-1").then(|| BucketLocationConstraint::from(self.shared.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        listing::list_v1(&self.shared, req.input).map(S3Response::new)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        listing::list_v2(&self.shared, req.input).map(S3Response::new)
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        objects::head(&self.shared, &req.input)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let wrong = req.extensions.get::<WrongRange>().is_some();
        objects::get(&self.shared, &req.input, wrong)
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let trailers = req.trailing_headers;
        objects::put(&self.shared, req.input, &req.headers, trailers.as_ref()).await.map(S3Response::new)
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        copy::copy(&self.shared, req.input, &req.headers).await.map(S3Response::new)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        objects::delete(&self.shared, &req.input).map(S3Response::new)
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        objects::delete_many(&self.shared, &req.input).map(S3Response::new)
    }

    async fn restore_object(&self, req: S3Request<RestoreObjectInput>) -> Answer<RestoreObjectOutput> {
        objects::restore(&self.shared, &req.input)
    }

    async fn get_object_tagging(&self, req: S3Request<GetObjectTaggingInput>) -> Answer<GetObjectTaggingOutput> {
        objects::get_tags(&self.shared, &req.input).map(S3Response::new)
    }

    async fn put_object_tagging(&self, req: S3Request<PutObjectTaggingInput>) -> Answer<PutObjectTaggingOutput> {
        objects::put_tags(&self.shared, req.input).map(S3Response::new)
    }

    async fn delete_object_tagging(
        &self,
        req: S3Request<DeleteObjectTaggingInput>,
    ) -> Answer<DeleteObjectTaggingOutput> {
        objects::delete_tags(&self.shared, &req.input).map(S3Response::new)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        multipart::create(&self.shared, req.input).map(S3Response::new)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let trailers = req.trailing_headers;
        multipart::upload_part(&self.shared, req.input, &req.headers, trailers.as_ref()).await.map(S3Response::new)
    }

    async fn upload_part_copy(&self, req: S3Request<UploadPartCopyInput>) -> Answer<UploadPartCopyOutput> {
        copy::copy_part(&self.shared, &req.input).await.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        multipart::complete(&self.shared, req.input, &req.headers).map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let output = multipart::abort(&self.shared, &req.input)?;
        Ok(S3Response::with_status(output, hyper::StatusCode::NO_CONTENT))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        multipart::list_parts(&self.shared, req.input).map(S3Response::new)
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        listing::list_uploads(&self.shared, req.input).map(S3Response::new)
    }
}
