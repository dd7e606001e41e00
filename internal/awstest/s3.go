package awstest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var versitygw = sync.OnceValues(func() (*server, error) {
	return startVersitygw(func(ctx context.Context, cfg aws.Config) error {
		_, err := newS3(cfg).ListBuckets(ctx, nil)
		return err
	})
})

// S3 returns a client of versitygw, or of FANOUT_TEST_ENDPOINT_S3.
func S3(t testing.TB) *s3.Client {
	t.Helper()
	return newS3(connect(t, "S3", versitygw))
}

func newS3(cfg aws.Config) *s3.Client {
	return s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
}

// Bucket makes a bucket, and drops it with all that is in it when the test ends.
func Bucket(t testing.TB, c *s3.Client) string {
	t.Helper()
	name := newName()
	input := &s3.CreateBucketInput{Bucket: &name}
	if r := c.Options().Region; r != region { // the one region that must not be named
		input.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(r)}
	}
	if _, err := c.CreateBucket(t.Context(), input); err != nil {
		t.Fatal(err)
	}
	atEnd(t, "bucket "+name, func(ctx context.Context) error {
		if err := empty(ctx, c, name); err != nil {
			return err
		}
		_, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &name})
		return err
	})
	return name
}

// empty drops uploads that were not completed, and all objects.
func empty(ctx context.Context, c *s3.Client, bucket string) error {
	uploads := s3.NewListMultipartUploadsPaginator(c, &s3.ListMultipartUploadsInput{Bucket: &bucket})
	for uploads.HasMorePages() {
		page, err := uploads.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			if _, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: u.Key, UploadId: u.UploadId}); err != nil {
				return err
			}
		}
	}
	objects := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: &bucket})
	for objects.HasMorePages() {
		page, err := objects.NextPage(ctx)
		if err != nil {
			return err
		}
		var ids []types.ObjectIdentifier
		for _, o := range page.Contents {
			ids = append(ids, types.ObjectIdentifier{Key: o.Key})
		}
		if len(ids) == 0 {
			continue
		}
		gone, err := c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{Objects: ids}})
		if err != nil {
			return err
		}
		for _, e := range gone.Errors {
			return fmt.Errorf("delete %s: %s", aws.ToString(e.Key), aws.ToString(e.Message))
		}
	}
	return nil
}
