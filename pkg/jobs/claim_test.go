package jobs

import (
	"testing"
	"time"
)

func TestStandingTable(t *testing.T) {
	now := time.Unix(100, 0)
	// done, dead, buried, the message's burial number beside the record's, a live lease, not due
	decisionTable(t, map[string]standing{
		"1*****": standDone,
		"01*=**": standRedriven,
		"010<**": standUnburied, "010>**": standUnburied,
		"011<**": standStale, "011>**": standStale,
		"00**1*": standLeased,
		"00**01": standPutOff,
		"00**00": standOpen,
	}).check([]string{"01", "01", "01", "<=>", "01", "01"}, func(key string) standing {
		c := Chunk{Lines: 3, Burial: 4, Dead: key[1] == '1', Buried: key[2] == '1'}
		if key[0] == '1' {
			c.Resolved = AllBits(3)
		}
		if key[5] == '1' {
			c.NotBefore = now.Add(1)
		}
		m := ChunkMessage{Burial: map[byte]int{'<': 3, '=': 4, '>': 5}[key[3]]}
		return standingOf(&c, &m, now, key[4] == '1')
	})
}

func TestDeferredChunkIsDueOnTheDot(t *testing.T) {
	now := time.Unix(100, 0)
	c := Chunk{Lines: 3, NotBefore: now}
	if got := standingOf(&c, &ChunkMessage{}, now, false); got != standOpen {
		t.Errorf("it is %s, want open", got)
	}
}

func TestLeaseIsLiveByTheseRules(t *testing.T) {
	now := time.Unix(100, 0)
	for _, row := range []struct {
		name  string
		owner string
		lease time.Time
		sole  bool
		want  bool
	}{
		{"given up", "", now.Add(1), false, false},
		{"held", "other/1", now.Add(1), false, true},
		{"ends now", "other/1", now, false, false},
		{"held by a predecessor of a sole process", "other/1", now.Add(1), true, false},
		{"held by the sole process itself", "me/1", now.Add(1), true, true},
		{"held by one whose name begins alike", "me2/1", now.Add(1), true, false},
		{"of the sole process, ended", "me/1", now, true, false},
	} {
		p := Ports{Now: func() time.Time { return now }, Process: "me", Sole: row.sole}
		if got := p.alive(&Chunk{Owner: row.owner, Lease: row.lease}); got != row.want {
			t.Errorf("%s: %t, want %t", row.name, got, row.want)
		}
	}
}

func TestLeaseIsLiveWhateverTheNameOfItsProcess(t *testing.T) {
	for _, process := range []string{"me", "", "host/me", "2026/11/23/[$LATEST]ab"} {
		p := Ports{Now: func() time.Time { return time.Unix(100, 0) }, NewID: func() string { return "id" }, Process: process, Sole: true}
		if !p.alive(&Chunk{Owner: p.newOwner(), Lease: time.Unix(101, 0)}) {
			t.Errorf("process %q takes its own lease for that of a dead predecessor", process)
		}
	}
}

func TestOnlyTheChunkThatProbesIsLetThroughAPause(t *testing.T) {
	it, other := ChunkID{"j", 1, 5}, ChunkID{"j", 1, 6}
	for _, row := range []struct {
		probe *ChunkID
		want  bool
	}{{nil, false}, {&other, false}, {&ChunkID{"j", 1, 5}, true}} {
		if got := probes(&Pause{Probe: row.probe}, it); got != row.want {
			t.Errorf("probe %v lets %v through: %t", row.probe, it, got)
		}
	}
}
