package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMessagesReadBackAsTheyWereSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job := JobID(rapid.StringN(1, 40, -1).Filter(func(s string) bool { return s == strings.ToValidUTF8(s, "") }).Draw(t, "job"))
		_, blank := drawSet(t, "blank")
		_, skip := drawSet(t, "skip")
		chunk := ChunkMessage{
			V: SchemaVersion, Job: job, Tenant: rapid.StringMatching(`[A-Za-z0-9_-]{0,64}`).Draw(t, "tenant"), Split: rapid.IntRange(0, MaxJobSplits-1).Draw(t, "split"),
			Offset: rapid.Int64Range(0, math.MaxInt64).Draw(t, "offset"), Length: rapid.Int64Range(1, math.MaxInt64).Draw(t, "length"),
			Line: rapid.Int64Range(1, math.MaxInt64).Draw(t, "line"), Lines: rapid.IntRange(1, MaxChunkLines).Draw(t, "lines"),
			CRC: rapid.Uint32().Draw(t, "crc"), Burial: rapid.IntRange(0, 99).Draw(t, "burial"),
			Blank: blank.trim(), Skip: skip.trim(),
		}
		advance := AdvanceMessage{SchemaVersion, job, rapid.IntRange(WholeJob, MaxJobSplits-1).Draw(t, "advance")}
		upload := UploadMessage{
			V: SchemaVersion, Upload: FileRef{Name: "inbox/t/" + string(job), Version: rapid.StringN(1, 40, 256).Filter(utf8.ValidString).Draw(t, "version")},
			Bucket: rapid.StringMatching(`[a-z.-]{0,63}`).Draw(t, "bucket"), Sequencer: rapid.StringMatching(`[0-9A-F]{0,32}`).Draw(t, "sequencer"),
			Bytes: rapid.Int64Range(0, math.MaxInt64).Draw(t, "bytes"),
		}
		ping := PingMessage{SchemaVersion, true, time.Unix(rapid.Int64Range(0, 1<<36).Draw(t, "sent"), 5).UTC()}
		notice := NoticeMessage{
			V: SchemaVersion, Notice: rapid.StringMatching(`dlv_[0-9a-f]{32}`).Draw(t, "delivery"), Tenant: rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "of"),
			Attempt: rapid.IntRange(1, maxNotices).Draw(t, "attempt"), URL: "https://x/" + rapid.StringMatching(`[a-z<>&]{0,500}`).Draw(t, "url"), EventID: "evt_1",
			Timestamp: rapid.Int64Range(1, 1<<36).Draw(t, "signed"), Signature: "v1," + rapid.StringMatching(`[A-Za-z0-9+/=]{1,64}`).Draw(t, "signature"),
			Body: `{"id":"` + rapid.StringMatching(`[a-z<>&]{0,64}`).Draw(t, "event") + `"}`,
		}
		delivered := DeliveredMessage{
			SchemaVersion, notice.Notice, notice.Tenant, notice.Attempt, rapid.IntRange(0, 999).Draw(t, "status"),
			rapid.StringN(0, 200, 1000).Filter(utf8.ValidString).Draw(t, "error"), rapid.Bool().Draw(t, "stale"), ping.Sent,
		}
		for _, c := range []struct {
			sent Body
			body []byte
		}{
			{Body{Notice: &notice}, encodeMessage(notice)}, {Body{Delivered: &delivered}, encodeMessage(delivered)},
			{Body{Chunk: &chunk}, encodeMessage(chunk)}, {Body{Advance: &advance}, encodeMessage(advance)},
			{Body{Upload: &upload}, UploadBody(upload)}, {Body{Ping: &ping}, PingBody(ping.Sent)},
		} {
			sent, body := c.sent, c.body
			got, err := DecodeMessage(body)
			if err != nil {
				t.Fatal(err)
			}
			same := cmp.Comparer(func(a, b Bits) bool { return a.Equal(b) })
			if d := cmp.Diff(sent, got, same); d != "" {
				t.Fatalf("message (-sent +read):\n%s", d)
			}
		}
	})
	got, err := DecodeMessage(TickBody())
	if d := cmp.Diff(Body{Tick: &TickMessage{V: SchemaVersion, Sweep: true}}, got); err != nil || d != "" {
		t.Errorf("tick %v (-sent +read):\n%s", err, d)
	}
	got, err = DecodeMessage([]byte(`{"v":1,"ping":true}`)) // of a scheduler that cannot tell the time
	if d := cmp.Diff(Body{Ping: &PingMessage{V: SchemaVersion, Ping: true}}, got); err != nil || d != "" {
		t.Errorf("ping %v (-sent +read):\n%s", err, d)
	}
}

func TestChunkMessageIsSmall(t *testing.T) {
	m := ChunkMessage{
		V: SchemaVersion, Job: "batch_0123456789abcdef0123456789", Tenant: "tenant-of-a-usual-name", Split: 7999, Offset: 1 << 40, Length: 4 << 20,
		Line: 1_000_000_000, Lines: 100, CRC: math.MaxUint32, Burial: 3,
	}
	if n := len(encodeMessage(m)); n > 200 {
		t.Errorf("a usual message has %d bytes, want about 200: %s", n, encodeMessage(m))
	}
	var half Bits // the worst for runs and for bits
	for i := 0; i < MaxChunkLines; i += 2 {
		half.Set(i)
	}
	m.Lines, m.Blank, m.Skip = MaxChunkLines, half, half
	if n := len(encodeMessage(m)); n > 2<<10 {
		t.Errorf("the largest message has %d bytes", n)
	}
}

// TestNoticesAreSmall: SQS bills by 64 KB.
func TestNoticesAreSmall(t *testing.T) {
	d := aDelivery(time.Unix(1_800_000_000, 0))
	d.Job, d.Tenant = "batch_0123456789abcdef0123456789abcdef", strings.Repeat("t", maxOwner)
	for url, most := range map[string]int{"https://hooks.example/fanout": 1000, "https://x/" + strings.Repeat("<", maxHookURL-10): 16 << 10} {
		h := &Hook{URL: url, Secret: newHookSecret()}
		d.URL = h.URL
		if body, err := d.notice(h, time.Now()); err != nil || len(body) > most {
			t.Errorf("a notice has %d bytes, of %d: %v", len(body), most, err)
		}
	}
}

// messageWith is a chunk message with one member replaced; "-" leaves it out.
func messageWith(name, value string) string {
	var members []string
	for _, m := range [][2]string{{"v", "1"}, {"job", `"j"`}, {"split", "0"}, {"offset", "0"}, {"length", "1"}, {"line", "1"}, {"lines", "1"}} {
		if m[0] == name {
			m[1] = value
			name = ""
		}
		if m[1] != "-" {
			members = append(members, fmt.Sprintf("%q:%s", m[0], m[1]))
		}
	}
	if name != "" {
		members = append(members, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// noticeWith is a notice with one member replaced.
func noticeWith(name, value string) string {
	members := map[string]string{"v": "1", "notice": `"d"`, "tenant": `"t"`, "attempt": "1", "url": `"https://x"`, "event": `"e"`,
		"timestamp": "1", "signature": `"v1,x"`, "body": `"{}"`}
	return replaced(members, name, value)
}

// reportWith is a report of a notice with one member replaced.
func reportWith(name, value string) string {
	members := map[string]string{"v": "1", "delivered": `"d"`, "tenant": `"t"`, "attempt": "1", "status": "200", "at": `"2026-01-01T00:00:00Z"`}
	return replaced(members, name, value)
}

func replaced(members map[string]string, name, value string) string {
	if name != "" {
		members[name] = value
	}
	all := map[string]json.RawMessage{}
	for name, value := range members {
		all[name] = json.RawMessage(value)
	}
	return string(encodeMessage(all))
}

func quoted(n int) string { return `"` + strings.Repeat("x", n) + `"` }

// uploadWith is an upload message, of a good reference unless one is given, and more members.
func uploadWith(ref, more string) string {
	if ref == "" {
		ref = `{"name":"inbox/t/a.jsonl","version":"v"}`
	}
	return `{"v":1,"upload":` + ref + more + "}"
}

func TestMessagesThatBreakALimitAreInvalid(t *testing.T) {
	if b, err := DecodeMessage([]byte(messageWith("split", "7999"))); err != nil || b.Chunk == nil {
		t.Fatalf("a good message: %v", err)
	}
	if b, err := DecodeMessage([]byte(uploadWith("", ""))); err != nil || b.Upload == nil {
		t.Fatalf("a good upload: %v", err)
	}
	if b, err := DecodeMessage([]byte(noticeWith("", ""))); err != nil || b.Notice == nil {
		t.Fatalf("a good notice: %v", err)
	}
	if b, err := DecodeMessage([]byte(reportWith("", ""))); err != nil || b.Delivered == nil {
		t.Fatalf("a good report: %v", err)
	}
	for _, body := range []string{
		noticeWith("notice", `""`), noticeWith("notice", `"a/b"`), noticeWith("notice", quoted(65)), noticeWith("tenant", `""`), noticeWith("tenant", quoted(257)),
		noticeWith("attempt", "0"), noticeWith("attempt", "1000001"), noticeWith("url", `""`), noticeWith("url", quoted(2001)), noticeWith("event", `""`),
		noticeWith("event", `"a\nb"`), noticeWith("timestamp", "0"), noticeWith("timestamp", "253402300800"), noticeWith("signature", `""`), noticeWith("signature", `"a\nb"`),
		noticeWith("signature", quoted(257)), noticeWith("body", `""`), noticeWith("body", quoted(4097)), noticeWith("body", "{}"),
		reportWith("delivered", `""`), reportWith("delivered", `"a/b"`), reportWith("tenant", `""`), reportWith("attempt", "-1"), reportWith("status", "-1"),
		reportWith("status", "1000"), reportWith("error", quoted(1025)), reportWith("at", `"9999-12-31T23:59:59-10:00"`), reportWith("at", "7"), reportWith("stale", "1"),
		"", "null", "{}", "[]", "7", `"x"`, "{", "\x00", messageWith("", "") + "x",
		messageWith("v", "-"), messageWith("v", "0"), messageWith("v", "-1"), messageWith("v", `"1"`),
		messageWith("job", `""`), messageWith("job", "-"), messageWith("job", "7"),
		messageWith("split", "-1"), messageWith("split", "8000"), messageWith("split", "99999999999999999999"), messageWith("split", "1.5"),
		messageWith("offset", "-1"), messageWith("length", "0"), messageWith("length", "-1"), messageWith("length", "-"),
		messageWith("line", "0"), messageWith("line", "-"), messageWith("lines", "0"), messageWith("lines", "4097"),
		messageWith("burial", "-1"), messageWith("crc", "-1"), messageWith("crc", "4294967296"),
		messageWith("blank", `"4096"`), messageWith("skip", `"2-1"`), messageWith("skip", "[1]"),
		`{"v":1,"advance":"j","split":-2}`, `{"v":1,"advance":"j","split":8000}`, `{"v":1,"advance":""}`, `{"v":1,"advance":7}`,
		`{"v":1,"sweep":false}`, `{"sweep":true}`,
		`{"v":1,"ping":false}`, `{"ping":true}`, `{"v":1,"ping":true,"sent":"yesterday"}`, `{"v":1,"ping":true,"sent":"9999-12-31T23:59:59-10:00"}`,
		`{"v":1,"ping":true,"sent":"0000-12-31T23:59:59Z"}`, uploadWith(`{"name":"a"}`, ""), uploadWith(`{"version":"v"}`, ""), uploadWith(`"a"`, ""),
		uploadWith(`{"name":"`+strings.Repeat("x", 1025)+`","version":"v"}`, ""), uploadWith(`{"name":"a","version":"`+strings.Repeat("x", 257)+`"}`, ""),
		uploadWith("", `,"bytes":-1`), uploadWith("", `,"bucket":"`+strings.Repeat("x", 257)+`"`), uploadWith("", `,"sequencer":"`+strings.Repeat("x", 257)+`"`),
	} {
		b, err := DecodeMessage([]byte(body))
		if CodeOf(err) != CodeInvalid || errors.Is(err, ErrNewer) || b != (Body{}) {
			t.Errorf("%s: %+v, %v; want nothing, and an error of code invalid", body, b, err)
		}
	}
}

func TestMessageOfANewerVersionIsLeftForANewerReader(t *testing.T) {
	for _, body := range []string{
		messageWith("v", "2"), `{"v":2}`, `{"v":99,"advance":"j","split":-5}`, `{"v":2,"sweep":true}`, `{"v":2,"verb":"new"}`,
	} {
		if b, err := DecodeMessage([]byte(body)); !errors.Is(err, ErrNewer) || CodeOf(err) == CodeInvalid || b != (Body{}) {
			t.Errorf("%s: %+v, %v; want ErrNewer", body, b, err)
		}
	}
}

func TestMessageOfANewerVersionMayHaveAnotherShape(t *testing.T) {
	for _, body := range []string{
		`{"v":2,"job":{"id":"j"}}`, `{"v":2,"split":"7"}`, `{"split":"7","v":2}`, `{"v":2,"blank":"0-9999"}`, `{"skip":[1,2],"v":2}`,
	} {
		if _, err := DecodeMessage([]byte(body)); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v; want ErrNewer, or it goes to the dead letters", body, err)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(TickBody())
	f.Add([]byte(messageWith("", "")))
	f.Add([]byte(messageWith("blank", `"0-3,9"`)))
	f.Add([]byte(messageWith("skip", `"=VVVVBQ"`)))
	f.Add([]byte(`{"v":1,"advance":"j","split":-1}`))
	f.Add([]byte(`{"v":2}`))
	f.Add(PingBody(time.Unix(1_800_000_000, 0)))
	f.Add([]byte(`{"v":1,"ping":true,"sent":"9999-12-31T23:59:59-10:00"}`))
	f.Add([]byte(noticeWith("", "")))
	f.Add([]byte(reportWith("error", `"no"`)))
	f.Add([]byte(uploadWith("", `,"bucket":"b","sequencer":"0A1B2C","bytes":7`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := DecodeMessage(body)
		if err != nil {
			if b != (Body{}) || CodeOf(err) != CodeInvalid && !errors.Is(err, ErrNewer) {
				t.Fatalf("%+v, %v", b, err)
			}
			return
		}
		set := 0
		var again any
		if b.Chunk != nil {
			set, again = set+1, b.Chunk
			if id := b.Chunk.ID(); id.Job == "" || id.Split < 0 || id.Split >= MaxJobSplits || id.Offset < 0 {
				t.Fatalf("a chunk without a name: %v", id)
			}
			if b.Chunk.Lines > MaxChunkLines || b.Chunk.Blank.Count() > MaxChunkLines {
				t.Fatalf("a chunk over the limits: %+v", b.Chunk)
			}
		}
		if b.Advance != nil {
			set, again = set+1, b.Advance
		}
		if b.Tick != nil {
			set, again = set+1, b.Tick
		}
		if b.Upload != nil {
			set, again = set+1, b.Upload
			if u := b.Upload; u.Upload.Name == "" || u.Upload.Version == "" || len(u.Upload.Name) > 1024 || u.Bytes < 0 {
				t.Fatalf("an upload without a version, or over the limits: %+v", u)
			}
		}
		if b.Ping != nil {
			set, again = set+1, b.Ping
		}
		if b.Notice != nil {
			set, again = set+1, b.Notice
		}
		if b.Delivered != nil {
			set, again = set+1, b.Delivered
		}
		if set != 1 {
			t.Fatalf("%d messages in one body", set)
		}
		read, err := DecodeMessage(encodeMessage(again))
		if x, y := asJSON(t, b), asJSON(t, read); err != nil || x != y {
			t.Fatalf("%s reads back as %s, %v", x, y, err)
		}
		if !json.Valid(encodeMessage(again)) {
			t.Fatal("it is written as no JSON")
		}
	})
}
