package config

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// whole is an environment with all that must be set.
func whole(more ...string) []string {
	return append([]string{
		"PATH=/bin", "FANOUT_TABLE=fanout", "FANOUT_BUCKET=fanout-1",
		"FANOUT_INGEST_QUEUE=https://sqs/1/ingest", "FANOUT_WORK_QUEUE=https://sqs/1/work", "FANOUT_AGGREGATE_QUEUE=https://sqs/1/aggregate",
		"FANOUT_WORK_DEAD_LETTERS=https://sqs/1/work-dead", "FANOUT_UPSTREAM=https://models.example/v1",
	}, more...)
}

func TestDefaultsAreTakenForWhatIsNotSet(t *testing.T) {
	got, err := Load[Worker](whole("FANOUT_CONCURRENCY=", "FANOUT_UPSTREAM_KEY=sesame"))
	if err != nil {
		t.Fatal(err)
	}
	want := Worker{
		Cloud: Cloud{
			Table: "fanout", Bucket: "fanout-1", IngestQueue: "https://sqs/1/ingest", WorkQueue: "https://sqs/1/work",
			AggregateQueue: "https://sqs/1/aggregate", FairQueues: true, LogLevel: slog.LevelInfo,
		},
		DeadLetters: "https://sqs/1/work-dead", Upstream: "https://models.example/v1", UpstreamKey: "sesame",
		Concurrency: 100, CallTimeout: 2 * time.Minute,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEverythingMissingOrWrongIsToldTogether(t *testing.T) {
	for _, row := range []struct {
		name    string
		load    func(environ []string) error
		environ []string
		want    []string
	}{
		{"nothing is set", loadError[Worker], nil, []string{
			"FANOUT_AGGREGATE_QUEUE is not set", "FANOUT_BUCKET is not set", "FANOUT_INGEST_QUEUE is not set", "FANOUT_TABLE is not set",
			"FANOUT_UPSTREAM is not set", "FANOUT_WORK_DEAD_LETTERS is not set", "FANOUT_WORK_QUEUE is not set",
		}},
		{"wrong in every way", loadError[Worker],
			whole("FANOUT_TABLE= ", "FANOUT_CONCURRENCY=many", "FANOUT_CALL_TIMEOUT=-1s", "FANOUT_FAIR_QUEUES=perhaps",
				"FANOUT_LOG_LEVEL=LOUD", "FANOUT_WORK_QUEUE=work", "FANOUT_UPSTREAM=sesame"), []string{
				"FANOUT_CALL_TIMEOUT is -1s, but must be above 0", "FANOUT_CONCURRENCY must be a whole number",
				"FANOUT_FAIR_QUEUES must be true or false", "FANOUT_LOG_LEVEL must be DEBUG, INFO, WARN or ERROR", "FANOUT_TABLE is not set",
				"FANOUT_UPSTREAM must be a URL that begins with https:// or http://", "FANOUT_WORK_QUEUE must be a URL that begins with https:// or http://",
			}},
		{"out of range", loadError[Worker], whole("FANOUT_CONCURRENCY=0"), []string{"FANOUT_CONCURRENCY is 0, but must be from 1 to 1000"}},
		{"an upload's window", loadError[Ingest], whole("FANOUT_INGEST_DEAD_LETTERS=http://x", "FANOUT_UPLOAD_WINDOW=1s"),
			[]string{"FANOUT_UPLOAD_WINDOW is 1s, but must be from 1m0s to 336h0m0s"}},
		{"nothing is set of notify", loadError[Notify], nil, []string{
			"FANOUT_AGGREGATE_QUEUE is not set", "FANOUT_NOTIFY_DEAD_LETTERS is not set", "FANOUT_NOTIFY_QUEUE is not set",
		}},
		{"what notify may call", loadError[Notify], whole("FANOUT_NOTIFY_QUEUE=http://x", "FANOUT_NOTIFY_DEAD_LETTERS=http://x", "FANOUT_NOTIFY_ALLOW=10.0.0.0/8,10.1.2.3"),
			[]string{"FANOUT_NOTIFY_ALLOW must be networks such as 10.1.0.0/16, with commas between them"}},
		{"notify is well", loadError[Notify], whole("FANOUT_NOTIFY_QUEUE=http://x", "FANOUT_NOTIFY_DEAD_LETTERS=http://x", "FANOUT_NOTIFY_ALLOW=10.0.0.0/8,fd00::/8"), nil},
		{"where aggregate has notices sent", loadError[Aggregate], whole("FANOUT_AGGREGATE_DEAD_LETTERS=http://x", "FANOUT_NOTIFY_QUEUE=notify"),
			[]string{"FANOUT_NOTIFY_QUEUE must be a URL that begins with https:// or http://"}},
		{"all of the api that may be missing", loadError[API], whole("FANOUT_INGEST_DEAD_LETTERS=http://x", "FANOUT_AGGREGATE_DEAD_LETTERS=http://x"), nil},
		{"wrong of the api", loadError[API],
			whole("FANOUT_INGEST_DEAD_LETTERS=http://x", "FANOUT_AGGREGATE_DEAD_LETTERS=http://x", "FANOUT_NOTIFY_DEAD_LETTERS=http://x", "FANOUT_FRONT_DOOR=back", "FANOUT_OPERATOR_KEY_SHA256=sesame", "FANOUT_OPERATOR_TENANT=a/b", "FANOUT_NOTIFY_QUEUE=notify", "FANOUT_MAX_FILE_BYTES=0"),
			[]string{
				"FANOUT_FRONT_DOOR must be buffered or streaming", "FANOUT_MAX_FILE_BYTES is 0, but must be above 0",
				"FANOUT_NOTIFY_QUEUE must be a URL that begins with https:// or http://", "FANOUT_OPERATOR_KEY_SHA256 must be the SHA-256 of a key, in lower-case hex",
				"FANOUT_OPERATOR_TENANT takes 1 to 64 letters, digits, - and _",
			}},
		{"upstreams of AWS", loadError[Worker], whole("FANOUT_UPSTREAM=bedrock"), nil},
		{"an endpoint", loadError[Worker], whole("FANOUT_UPSTREAM=sagemaker:llama-3"), nil},
		{"no endpoint", loadError[Worker], whole("FANOUT_UPSTREAM=sagemaker:a/b"), []string{"FANOUT_UPSTREAM must name an endpoint after sagemaker:"}},
		{"two keys", loadError[Worker], whole("FANOUT_UPSTREAM_KEY=sesame", "FANOUT_UPSTREAM_KEY_FROM=/fanout/key"),
			[]string{"FANOUT_UPSTREAM_KEY_FROM and FANOUT_UPSTREAM_KEY are both set"}},
		{"all is well", loadError[Worker], whole("FANOUT_UPSTREAM=builtin"), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got []string
			err := row.load(row.environ)
			if err != nil {
				got = strings.Split(strings.TrimPrefix(err.Error(), "read the environment: "), "; ")
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if err != nil && strings.Contains(err.Error(), "sesame") {
				t.Error("a value is told that may be a secret")
			}
		})
	}
}

func loadError[T any, P Checked[T]](environ []string) error {
	_, err := Load[T, P](environ)
	return err
}
