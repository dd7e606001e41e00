package awsjobs

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Direct makes presigned URLs: whoever has one may do for a while what the process's own credentials may. So a URL lives no
// longer than they do: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
type Direct struct {
	client *s3.PresignClient
	bucket string
}

// NewDirect makes URLs of objects in a bucket.
func NewDirect(client *s3.Client, bucket string) *Direct {
	return &Direct{client: s3.NewPresignClient(client), bucket: bucket}
}

// PutURL lets bring an object that is not there yet, with these headers: S3 refuses another PUT of the same name.
func (d *Direct) PutURL(ctx context.Context, object string, life time.Duration) (string, map[string]string, error) {
	if err := jobs.CheckName(object); err != nil {
		return "", nil, fmt.Errorf("presign %s: %w", object, err)
	}
	out, err := d.client.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &d.bucket, Key: &object, IfNoneMatch: aws.String("*")}, lasting(life))
	if err != nil {
		return "", nil, fmt.Errorf("presign %s: %w", object, err)
	}
	headers := map[string]string{}
	for name, values := range out.SignedHeader {
		if !strings.EqualFold(name, "Host") { // who calls the URL sends that
			headers[http.CanonicalHeaderKey(name)] = strings.Join(values, ",")
		}
	}
	return out.URL, headers, nil
}

// GetURL lets take an object away, under a file name.
func (d *Direct) GetURL(ctx context.Context, object, filename string, life time.Duration) (string, error) {
	if err := jobs.CheckName(object); err != nil {
		return "", fmt.Errorf("presign %s: %w", object, err)
	}
	out, err := d.client.PresignGetObject(ctx, &s3.GetObjectInput{
		Bucket: &d.bucket, Key: &object,
		ResponseContentDisposition: aws.String(mime.FormatMediaType("attachment", map[string]string{"filename": filename})),
		ResponseContentType:        aws.String("application/octet-stream"),
	}, lasting(life))
	if err != nil {
		return "", fmt.Errorf("presign %s: %w", object, err)
	}
	return out.URL, nil
}

// lasting presigns for so long, and asks for nothing that a plain client does not send: a checksum of what is not known yet.
func lasting(life time.Duration) func(*s3.PresignOptions) {
	return func(o *s3.PresignOptions) {
		o.Expires = life
		o.ClientOptions = append(o.ClientOptions, func(c *s3.Options) { c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired })
	}
}
