package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawSet draws a set of ordinals as a map, and the same as Bits, perhaps with bytes of nothing at its end.
func drawSet(t *rapid.T, name string) (map[int]bool, Bits) {
	most := rapid.SampledFrom([]int{1, 9, 100, MaxChunkLines}).Draw(t, name+" below")
	set := map[int]bool{}
	var b Bits
	for range rapid.IntRange(0, 8).Draw(t, name+" runs") {
		from := rapid.IntRange(0, most-1).Draw(t, name+" from")
		for i := from; i <= min(most-1, from+rapid.IntRange(0, 20).Draw(t, name+" length")); i++ {
			set[i] = true
			b.Set(i)
		}
	}
	return set, append(b, make([]byte, rapid.IntRange(0, 2).Draw(t, name+" padding"))...)
}

func sameSet(t *rapid.T, what string, want map[int]bool, got Bits) {
	t.Helper()
	ordinals := slices.Sorted(maps.Keys(want))
	if d := cmp.Diff(ordinals, slices.Collect(got.Ordinals)); d != "" {
		t.Fatalf("%s: ordinals (-want +got):\n%s", what, d)
	}
	if got.Count() != len(want) || got.Empty() != (len(want) == 0) {
		t.Fatalf("%s: %d ordinals, empty %t; want %d", what, got.Count(), got.Empty(), len(want))
	}
	for i := range MaxChunkLines {
		if got.Has(i) != want[i] {
			t.Fatalf("%s: has %d: %t", what, i, got.Has(i))
		}
	}
	if !got.Equal(BitsOf(ordinals...)) {
		t.Fatalf("%s: %s does not equal itself", what, got)
	}
}

func TestBitsAreASetOfOrdinals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, a := drawSet(t, "a")
		y, b := drawSet(t, "b")
		both, either, only := map[int]bool{}, maps.Clone(x), map[int]bool{}
		for i := range y {
			either[i] = true
		}
		for i := range x {
			if y[i] {
				both[i] = true
			} else {
				only[i] = true
			}
		}
		or, and, without := a.Or(b), a.And(b), a.Without(b)
		sameSet(t, "union", either, or)
		sameSet(t, "intersection", both, and)
		sameSet(t, "difference", only, without)
		if got := a.Equal(b); got != maps.Equal(x, y) {
			t.Fatalf("%s equals %s: %t", a, b, got)
		}
		for _, made := range []*Bits{&or, &and, &without} { // a result shares nothing with its operands
			for i := range 64 {
				made.Set(i)
			}
		}
		sameSet(t, "the left operand afterwards", x, a)
		sameSet(t, "the right operand afterwards", y, b)
	})
}

func TestAllBitsAreAllOrdinalsBelow(t *testing.T) {
	for n := range 130 {
		all := AllBits(n)
		if all.Count() != n || all.Has(n) || n > 0 && !all.Has(n-1) {
			t.Errorf("AllBits(%d) = %s", n, all)
		}
	}
	if n := AllBits(MaxChunkLines).Count(); n != MaxChunkLines {
		t.Errorf("%d of all lines", n)
	}
}

func TestOrdinalsCanBeLeftEarly(t *testing.T) {
	for i := range BitsOf(3, 5, 700).Ordinals {
		if i != 3 {
			t.Fatalf("went on to %d", i)
		}
		break
	}
}

func TestBitsReadBackAsTheyWereWritten(t *testing.T) {
	longest := len("=") + (MaxChunkLines/8*8+5)/6
	rapid.Check(t, func(t *rapid.T) {
		x, b := drawSet(t, "bits")
		text, err := b.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > longest {
			t.Fatalf("%d characters for at most %d bits", len(text), MaxChunkLines)
		}
		if plain, _ := BitsOf(slices.Sorted(maps.Keys(x))...).MarshalText(); string(plain) != string(text) {
			t.Fatalf("the same set is %q and %q", plain, text)
		}
		body, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		read := BitsOf(1, 2, 3) // what was there before is gone
		if err := json.Unmarshal(body, &read); err != nil {
			t.Fatal(err)
		}
		sameSet(t, "read", x, read)
	})
}

func TestBitsAreWrittenTheShorterWay(t *testing.T) {
	every := func(step int) Bits {
		var b Bits
		for i := 0; i < 100; i += step {
			b.Set(i)
		}
		return b
	}
	for _, row := range []struct {
		b    Bits
		want string
	}{
		{nil, ""},
		{Bits{0, 0}, ""},
		{BitsOf(0), "0"},
		{BitsOf(0, 1), "0-1"},
		{AllBits(42).Or(BitsOf(43)), "0-41,43"},
		{BitsOf(7, 9, 4095), "7,9,4095"},
		{AllBits(MaxChunkLines), "0-4095"},
		{every(2), "=VVVVVVVVVVVVVVVVBQ"},
	} {
		if text, err := row.b.MarshalText(); err != nil || string(text) != row.want {
			t.Errorf("%s is written %q, %v; want %q", row.b, text, err, row.want)
		}
	}
}

func TestHostileBitsAreRefused(t *testing.T) {
	for _, text := range []string{
		"-1", "1-", "-", ",", "1,", ",1", "1,,2", "3-1", "1-2-3", "a", "0x1", "1.5", "1e3", " 1", "1 ", "٣", "\x00",
		"4096", "0-4096", "99999999999999999999", "0-99999999999999999999", "0,5000",
		"=!", "=A", "=AA=", "=" + strings.Repeat("A", 684), strings.Repeat("=", 9),
	} {
		var b Bits
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%.30q is read as %s", text, b)
		}
	}
	long := strings.Repeat("x", 1<<20)
	var b Bits
	if err := b.UnmarshalText([]byte(long)); err == nil || len(err.Error()) > 200 {
		t.Error("a long text is told at length, or not refused")
	}
}

func TestAnyTextIsRefusedOrASetWithinTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune("0123456789-,=+AZ/")), 0, 20, -1).Draw(t, "text")
		var b Bits
		if b.UnmarshalText([]byte(text)) != nil {
			return
		}
		for i := range b.Ordinals {
			if i < 0 || i >= MaxChunkLines {
				t.Fatalf("%q holds ordinal %d", text, i)
			}
		}
		var again Bits
		if err := again.UnmarshalText(fmt.Append(nil, b)); err != nil || !again.Equal(b) {
			t.Fatalf("%q is %s, and that is %s, %v", text, b, again, err)
		}
	})
}

// FuzzBits reads any text as a set: it is refused, or within the limit and reads back as it was written.
func FuzzBits(f *testing.F) {
	for _, text := range []string{"", "0", "0-41,43", "7,9,4095", "0-4095", "=VVVVVVVVVVVVVVVVBQ", "=AAAA", "4096", "3-1", "+5", "0,0-3,2", "=/", "1-2-3", "-"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 2000 {
			t.Skip() // runs may overlap, and each costs as much as it is long
		}
		b := BitsOf(1, 2, 3)
		if err := b.UnmarshalText(text); err != nil {
			return
		}
		if all := slices.Collect(b.Ordinals); len(all) != b.Count() || len(all) > 0 && all[len(all)-1] >= MaxChunkLines {
			t.Fatalf("%.40q holds %d ordinals, the last %d", text, b.Count(), all[len(all)-1])
		}
		written, err := b.MarshalText()
		var again Bits // and nothing is left of what was there before
		if err := errors.Join(err, again.UnmarshalText(text)); err != nil || !again.Equal(b) {
			t.Fatalf("%.40q is read %s and %s, %v", text, b, again, err)
		}
		if err := again.UnmarshalText(written); err != nil || !again.Equal(b) {
			t.Fatalf("%.40q is written %q and read %s, %v", text, written, again, err)
		}
	})
}
