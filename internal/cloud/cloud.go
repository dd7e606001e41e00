// Package cloud makes the ports of AWS as a configuration says.
package cloud

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

// Ports are those of AWS, as what they are. A process that was opened with queues alone has no others.
type Ports struct {
	Store *awsjobs.Store
	Queue *awsjobs.Source
	Files *awsjobs.Files
	// Direct leads to objects past the process.
	Direct *awsjobs.Direct
}

// Jobs are the ports as the handlers take them.
func (p *Ports) Jobs() jobs.Ports {
	ports := jobs.Ports{Queue: p.Queue}
	if p.Store != nil {
		ports.Ledger, ports.Registry, ports.Files = p.Store, p.Store, p.Files
	}
	return ports.WithDefaults()
}

const (
	attempts    = 5                // of a request that is throttled or fails, with a back-off by the SDK
	leastIdle   = 64               // connections that are kept to a host
	answerAfter = 60 * time.Second // an answer that has not begun by then never will; a poll of SQS takes 20 s
	copyAfter   = 5 * time.Minute  // S3 copies 5 GiB before it answers
)

// Open makes clients of AWS, where the SDK finds its region, credentials and endpoints, and the ports on them. queues are
// those that not every process has: the dead letters of the queue that it handles, and the notify queue. concurrency is how
// many requests it may have under way: as many connections are kept, since a handshake costs more than most requests.
func Open(ctx context.Context, c config.Cloud, queues awsjobs.QueueURLs, concurrency int) (*Ports, error) {
	cfg, err := Configure(ctx, concurrency)
	if err != nil {
		return nil, err
	}
	queues.Ingest, queues.Work, queues.Aggregate = c.IngestQueue, c.WorkQueue, c.AggregateQueue
	queue := awsjobs.NewQueue(sqs.NewFromConfig(cfg), queues)
	if !c.FairQueues {
		queue.Group = nil
	}
	bucket := s3.NewFromConfig(cfg, func(o *s3.Options) { o.HTTPClient = client(copyAfter, concurrency) })
	return &Ports{
		Store:  awsjobs.NewStore(dynamodb.NewFromConfig(cfg), c.Table),
		Queue:  awsjobs.NewSource(queue),
		Files:  awsjobs.NewFiles(bucket, c.Bucket),
		Direct: awsjobs.NewDirect(bucket, c.Bucket),
	}, nil
}

// OpenQueue makes ports that are queues alone.
func OpenQueue(ctx context.Context, queues awsjobs.QueueURLs) (*Ports, error) {
	cfg, err := Configure(ctx, 0)
	if err != nil {
		return nil, err
	}
	queue := awsjobs.NewQueue(sqs.NewFromConfig(cfg), queues)
	queue.Group = nil // what it sends is handled in a moment, whosever it is
	return &Ports{Queue: awsjobs.NewSource(queue)}, nil
}

// Configure finds region, credentials and endpoints where the SDK does.
func Configure(ctx context.Context, concurrency int) (aws.Config, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(client(answerAfter, concurrency)), awsconfig.WithRetryer(func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = attempts })
	}))
	if err != nil {
		return cfg, fmt.Errorf("configure the clients of AWS: %w", err)
	}
	if cfg.Region == "" {
		return cfg, jobs.Errorf(jobs.CodeInvalid, "configure the clients of AWS: no region is set").WithHint("AWS_REGION=eu-central-1")
	}
	return cfg, nil
}

func client(answerAfter time.Duration, concurrency int) *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = max(leastIdle, concurrency)
		t.MaxIdleConns = 0 // the limit to a host is limit enough
		t.ResponseHeaderTimeout = answerAfter
	})
}
