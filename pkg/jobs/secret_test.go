package jobs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretIsMaskedHoweverItIsPrinted(t *testing.T) {
	const secret = Secret("whsec_open-sesame")
	holder := struct {
		Key  Secret
		Also *Secret
	}{Key: secret}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		args := []any{secret, holder}
		for _, arg := range args {
			got := fmt.Sprintf(verb, arg)
			if strings.Contains(got, string(secret)) || strings.Contains(strings.ToLower(got), fmt.Sprintf("%x", string(secret))) {
				t.Errorf("%s of %T prints %s", verb, arg, got)
			}
		}
	}
	encoded, err := json.Marshal(holder)
	if err != nil || !bytes.Contains(encoded, []byte(`"Key":"***"`)) {
		t.Errorf("JSON is %s (%v), want ***", encoded, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "key", secret)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "key", secret, "options", struct{ Key Secret }{secret})
	if strings.Contains(log.String(), string(secret)) || strings.Count(log.String(), masked) != 3 {
		t.Errorf("the log reads %s", log.String())
	}
	if got := fmt.Sprint(Secret("")); got != "" {
		t.Errorf("an empty secret prints as %q, so that one cannot see that it is missing", got)
	}
}
