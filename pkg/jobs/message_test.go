package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMessagesReadBackAsTheyWereSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job := JobID(rapid.StringN(1, 40, -1).Filter(func(s string) bool { return s == strings.ToValidUTF8(s, "") }).Draw(t, "job"))
		_, blank := drawSet(t, "blank")
		_, skip := drawSet(t, "skip")
		chunk := ChunkMessage{
			V: SchemaVersion, Job: job, Split: rapid.IntRange(0, MaxJobSplits-1).Draw(t, "split"),
			Offset: rapid.Int64Range(0, math.MaxInt64).Draw(t, "offset"), Length: rapid.Int64Range(1, math.MaxInt64).Draw(t, "length"),
			Line: rapid.Int64Range(1, math.MaxInt64).Draw(t, "line"), Lines: rapid.IntRange(1, MaxChunkLines).Draw(t, "lines"),
			CRC: rapid.Uint32().Draw(t, "crc"), Burial: rapid.IntRange(0, 99).Draw(t, "burial"),
			Blank: blank.trim(), Skip: skip.trim(),
		}
		advance := AdvanceMessage{SchemaVersion, job, rapid.IntRange(WholeJob, MaxJobSplits-1).Draw(t, "advance")}
		for _, sent := range []Body{{Chunk: &chunk}, {Advance: &advance}} {
			body := encodeMessage(sent.Chunk)
			if sent.Advance != nil {
				body = encodeMessage(sent.Advance)
			}
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
}

func TestChunkMessageIsSmall(t *testing.T) {
	m := ChunkMessage{
		V: SchemaVersion, Job: "batch_0123456789abcdef0123456789", Split: 7999, Offset: 1 << 40, Length: 4 << 20,
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

func TestMessagesThatBreakALimitAreInvalid(t *testing.T) {
	if b, err := DecodeMessage([]byte(messageWith("split", "7999"))); err != nil || b.Chunk == nil {
		t.Fatalf("a good message: %v", err)
	}
	for _, body := range []string{
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
