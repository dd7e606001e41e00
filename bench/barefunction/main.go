// Command barefunction is what the start of the functions is compared with: the least that a Lambda function with the same
// clients of AWS can be. It reads no configuration and knows no job. Its handler makes the calls that ours make, so that the
// linker keeps them; it is never invoked.
package main

import (
	"context"
	"errors"
	"log"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

func main() {
	cfg, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	c := &clients{dynamodb.NewFromConfig(cfg), sqs.NewFromConfig(cfg), s3.NewFromConfig(cfg)}
	lambda.Start(c.handle)
}

type clients struct {
	db     *dynamodb.Client
	queue  *sqs.Client
	bucket *s3.Client
}

func (c *clients) handle(ctx context.Context, _ events.SQSEvent) (events.SQSEventResponse, error) {
	return events.SQSEventResponse{}, errors.Join(
		failure(c.db.GetItem(ctx, &dynamodb.GetItemInput{})),
		failure(c.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{})),
		failure(c.db.PutItem(ctx, &dynamodb.PutItemInput{})),
		failure(c.db.Query(ctx, &dynamodb.QueryInput{})),
		failure(c.queue.SendMessage(ctx, &sqs.SendMessageInput{})),
		failure(c.queue.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{})),
		failure(c.queue.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{})),
		failure(c.bucket.GetObject(ctx, &s3.GetObjectInput{})),
		failure(c.bucket.HeadObject(ctx, &s3.HeadObjectInput{})),
		failure(c.bucket.PutObject(ctx, &s3.PutObjectInput{})),
		failure(c.bucket.DeleteObjects(ctx, &s3.DeleteObjectsInput{})),
		failure(c.bucket.ListObjectsV2(ctx, &s3.ListObjectsV2Input{})),
		failure(c.bucket.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{})),
		failure(c.bucket.UploadPart(ctx, &s3.UploadPartInput{})),
		failure(c.bucket.UploadPartCopy(ctx, &s3.UploadPartCopyInput{})),
		failure(c.bucket.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{})),
		failure(c.bucket.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{})),
	)
}

func failure[T any](_ T, err error) error { return err }
