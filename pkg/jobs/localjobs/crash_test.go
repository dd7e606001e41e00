package localjobs

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestMain runs the crashing half of TestAKillLosesNothing where it is asked to.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LOCALJOBS_CRASH_IN"); dir != "" {
		if err := workUntilKilled(dir); err != nil {
			fmt.Println("error", err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// workUntilKilled sends, saves, commits, receives and acks, and says what it was promised, each line by one write.
func workUntilKilled(dir string) error {
	ctx := context.Background()
	l, err := Open(ctx, dir, Options{})
	if err != nil {
		return err
	}
	generation := strconv.FormatInt(time.Now().UnixNano(), 36)
	for i := 0; ; i += 5 {
		var bodies [][]byte
		for j := range 5 {
			bodies = append(bodies, fmt.Appendf(nil, "%s-%d", generation, i+j))
		}
		if _, err := l.Queue.Send(ctx, jobs.QueueWork, bodies...); err != nil {
			return err
		}
		for _, b := range bodies {
			fmt.Printf("sent %s\n", b)
		}
		c := jobs.Chunk{V: jobs.SchemaVersion, ID: jobs.ChunkID{Job: jobs.JobID(generation), Offset: int64(i)}}
		if err := l.Store.SaveChunk(ctx, &c); err != nil {
			return err
		}
		fmt.Printf("saved %s %d\n", generation, i)
		name := fmt.Sprintf("%s/%d", generation, i)
		w, err := l.Files.Create(ctx, name)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(w, name); err != nil {
			return err
		}
		if _, err := w.Commit(ctx); err != nil {
			return err
		}
		fmt.Printf("committed %s\n", name)
		m, err := l.Queue.Receive(ctx, jobs.QueueWork, 3, time.Hour)
		if err != nil {
			return err
		}
		for _, m := range m[:len(m)-1] { // one stays in hand
			fmt.Printf("acking %s\n", m.Body)
			if err := l.Queue.Ack(ctx, m); err != nil {
				return err
			}
			fmt.Printf("acked %s\n", m.Body)
		}
	}
}

func TestAKillLosesNothing(t *testing.T) {
	dir := t.TempDir()
	said := map[string][]string{} // by verb
	for _, lines := range []int{1, 17, 60, 150, 400} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "LOCALJOBS_CRASH_IN="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for s := bufio.NewScanner(out); s.Scan(); {
			verb, what, _ := strings.Cut(s.Text(), " ")
			said[verb] = append(said[verb], what)
			if seen++; seen == lines {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || seen < lines {
			t.Fatalf("the process ended by itself after %d lines (error: %v)", seen, err)
		}
	}
	if len(said["error"]) > 0 {
		t.Fatal(said["error"])
	}

	l := openAt(t, dir, Options{})
	there := map[string]bool{}
	for {
		m, err := l.Queue.Receive(t.Context(), jobs.QueueWork, 10, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if len(m) == 0 {
			break
		}
		for _, m := range m {
			there[string(m.Body)] = true
		}
	}
	for _, body := range said["sent"] {
		if !there[body] && !slices.Contains(said["acking"], body) {
			t.Errorf("message %s was sent and is lost", body)
		}
	}
	for _, body := range said["acked"] {
		if there[body] {
			t.Errorf("message %s was acked and came again", body)
		}
	}
	for _, saved := range said["saved"] {
		var job jobs.JobID
		var offset int64
		if _, err := fmt.Sscan(saved, &job, &offset); err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, err := range l.Store.Chunks(t.Context(), job, 0, jobs.At(offset)) {
			if err != nil {
				t.Fatal(err)
			}
			found++
		}
		if found != 1 {
			t.Errorf("chunk %s was saved and is lost", saved)
		}
	}
	for _, name := range said["committed"] {
		info, err := l.Files.Stat(t.Context(), name)
		if err != nil || info.Bytes != int64(len(name)) {
			t.Errorf("object %s was committed: now %+v, %v", name, info, err)
		}
	}
	for verb, n := range map[string]int{"sent": 100, "acked": 20, "saved": 20, "committed": 20} {
		if len(said[verb]) < n {
			t.Errorf("only %d were %s before the kills: too few to prove anything", len(said[verb]), verb)
		}
	}
}
