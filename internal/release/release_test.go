package release

import (
	"runtime/debug"
	"testing"
)

func TestVersionSaysWhatTheBuildKnows(t *testing.T) {
	tests := []struct {
		name         string
		info         debug.BuildInfo
		want, commit string
	}{
		{name: "nothing", want: "(devel)"},
		{name: "module", info: debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, want: "v1.2.3"},
		{name: "commit", info: debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "false"}}},
			want: "(devel)", commit: "0123456789ab"},
		{name: "commit and changes", info: debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}},
			want: "(devel)", commit: "0123456789ab+"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if name, commit := ofBuild(&tt.info); name != tt.want || commit != tt.commit {
				t.Errorf("got %q %q, want %q %q", name, commit, tt.want, tt.commit)
			}
		})
	}
}
