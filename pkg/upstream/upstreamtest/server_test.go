package upstreamtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// post asks s and returns status and body.
func post(t *testing.T, base, key, model, text string) (int, string) {
	t.Helper()
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":%q}]}]}`, model, text)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func TestWeatherHoldsForAsManyCallsAsItSays(t *testing.T) {
	s := new(Server)
	base := s.Start(t)
	const text = "[[status=429 times=2]]"
	var got []int
	for _, key := range []string{"a", "a", "b", "a", "b", "b", "a"} {
		status, _ := post(t, base, key, "m", text)
		got = append(got, status)
	}
	if diff := cmp.Diff([]int{429, 429, 429, 200, 429, 200, 200}, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"a": 4, "b": 3}, s.CallsByKey()); diff != "" {
		t.Errorf("calls by key (-want +got):\n%s", diff)
	}
	if s.Calls() != 7 || s.CallsOf(text) != 7 || s.CallsOf("other") != 0 {
		t.Errorf("%d calls, %d of the text", s.Calls(), s.CallsOf(text))
	}
}

func TestWeatherOfAllYieldsToARequestsOwn(t *testing.T) {
	s := new(Server)
	base := s.Start(t)
	if err := s.SetWeather("status=500"); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{"fair": 500, "[[status=401]]": 401, "[[pretty]]": 200} {
		if got, _ := post(t, base, "", "m", text); got != want {
			t.Errorf("%s: status %d, want %d", text, got, want)
		}
	}
	if got, _ := post(t, base, "", "[[status=402]]", "by its model"); got != 402 {
		t.Errorf("by its model: status %d, want 402", got)
	}
	if err := s.SetWeather(""); err != nil {
		t.Fatal(err)
	}
	if got, _ := post(t, base, "", "m", "fair"); got != 200 {
		t.Errorf("fair again: status %d, want 200", got)
	}
}

func TestMistakenWeatherShows(t *testing.T) {
	s := new(Server)
	base := s.Start(t)
	for _, words := range []string{"sunny", "status=abc", "status=42", "times=x", "delay=3", "hang=1"} {
		if s.SetWeather(words) == nil {
			t.Errorf("SetWeather(%q) took it", words)
		}
		status, body := post(t, base, "", "m", "[["+words+"]]")
		if status != 400 || !strings.Contains(body, "bad_weather") {
			t.Errorf("%s: %d %s, want 400 bad_weather", words, status, body)
		}
	}
}

func TestEqualRequestsHaveEqualAnswers(t *testing.T) {
	base := new(Server).Start(t)
	_, first := post(t, base, "a", "m", "hello there")
	_, second := post(t, base, "b", "m", "hello there")
	if first != second || !strings.Contains(first, `"content":"hello there"`) || !strings.Contains(first, `"total_tokens":4`) {
		t.Errorf("got %s and %s", first, second)
	}
}

func TestWrongKeyIsRefused(t *testing.T) {
	status, body := post(t, (&Server{Key: "k"}).Start(t), "", "m", "x")
	if status != 401 || !strings.Contains(body, "invalid_api_key") {
		t.Errorf("got %d %s", status, body)
	}
}

func TestExitIsCalledOnDemandOnly(t *testing.T) {
	exits := 0
	s := &Server{Exit: func() { exits++ }}
	base := s.Start(t)
	post(t, base, "", "m", "stay")
	if exits != 0 {
		t.Fatal("it left without being asked")
	}
	post(t, base, "", "m", "[[exit times=1]]")
	post(t, base, "", "m", "[[exit times=1]]")
	if exits != 1 {
		t.Errorf("it left %d times, want once", exits)
	}
}

func TestWidestIsTheMostCallsAtOnce(t *testing.T) {
	const width = 5
	var all sync.WaitGroup
	all.Add(width)
	s := &Server{OnCall: func(Call) { all.Done(); all.Wait() }}
	base := s.Start(t)
	var wg sync.WaitGroup
	for i := range width {
		wg.Go(func() { post(t, base, "", "m", fmt.Sprint(i)) })
	}
	wg.Wait()
	if s.Widest() != width {
		t.Errorf("widest %d, want %d", s.Widest(), width)
	}
}

func TestConstantAnswersAboutAKilobyteWithUsage(t *testing.T) {
	w := httptest.NewRecorder()
	Constant().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/chat/completions", strings.NewReader("{}")))
	if n := w.Body.Len(); n < 900 || n > 1400 || !strings.Contains(w.Body.String(), `"usage":`) {
		t.Errorf("%d bytes: %s", n, w.Body)
	}
}
