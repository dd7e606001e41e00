package jobstest

import (
	"bytes"
	"compress/gzip"
	"io"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func testUpload(t *testing.T, open func(t *testing.T) Rig) {
	for _, name := range []string{"inbox/tenant/a.jsonl", "inbox/tenant/2026/a b.jsonl.gz"} {
		t.Run(path.Ext(name), func(t *testing.T) {
			p := startPipeline(t, open(t), healthy, jobs.WorkerOptions{})
			content := requestLines(120) + "oops\n"
			if path.Ext(name) == ".gz" {
				var b bytes.Buffer
				w := gzip.NewWriter(&b)
				_, err := io.WriteString(w, content)
				must(t, err)
				must(t, w.Close())
				content = b.String()
			}
			info := put(t, p.rig.Ports.Files, name, content)
			m := jobs.UploadMessage{Upload: info.FileRef, Bucket: "b", Sequencer: "1", Bytes: info.Bytes}
			_, err := p.rig.Ports.Queue.Send(t.Context(), jobs.QueueIngest, jobs.UploadBody(m), jobs.UploadBody(m))
			must(t, err)
			j := p.waitEnded(jobs.PhaseCompleted)
			p.check(j, idsFrom(upTo(120)...), []string{""})
			if j.Tenant != "tenant" || j.Metadata[jobs.MetadataInboxKey] != name {
				t.Errorf("the job is of tenant %s, with metadata %v", j.Tenant, j.Metadata)
			}
		})
	}
}

func testPing(t *testing.T, open func(t *testing.T) Rig) {
	rig, told := open(t), make(chan jobs.QueueName, 100)
	rig.Ports.Watch.Pinged = func(q jobs.QueueName, _ time.Duration) { told <- q }
	startPipeline(t, rig, healthy, jobs.WorkerOptions{})
	_, err := rig.Ports.Queue.Send(t.Context(), jobs.QueueIngest, jobs.PingBody(time.Now()))
	must(t, err)
	timeout := time.NewTimer(fuse)
	defer timeout.Stop()
	waiting := []jobs.QueueName{jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate}
	for len(waiting) > 0 { // the next queue may be told of first
		select {
		case q := <-told:
			waiting = slices.DeleteFunc(waiting, func(w jobs.QueueName) bool { return w == q })
		case <-timeout.C:
			t.Fatalf("the ping has not come through %v after %s", waiting, fuse)
		}
	}
}
