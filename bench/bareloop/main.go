// Command bareloop is what fanout run is compared with: the loop that one would write by hand. It makes the same calls at
// the same concurrency and writes the same lines in the same order, and it does nothing else. It checks no line, looks for
// no duplicate, retries nothing, and a crash loses everything.
//
//	bareloop INPUT OUTPUT BASE-URL CONCURRENCY
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"
)

// maxLine bounds a line of the input, as fanout does.
const maxLine = 20 << 20

// item is a line of the input, and answered its line of the output.
type (
	item struct {
		CustomID string          `json:"custom_id"`
		URL      string          `json:"url"`
		Body     json.RawMessage `json:"body"`
	}
	answered struct {
		ID       string   `json:"id"`
		CustomID string   `json:"custom_id"`
		Response response `json:"response"`
		Error    *string  `json:"error"`
	}
	response struct {
		StatusCode int             `json:"status_code"`
		RequestID  *string         `json:"request_id"`
		Body       json.RawMessage `json:"body"`
	}
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: bareloop INPUT OUTPUT BASE-URL CONCURRENCY")
	}
	width, err := strconv.Atoi(os.Args[4])
	if err != nil || width < 1 {
		log.Fatalf("concurrency must be a number above 0, not %q", os.Args[4])
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], width); err != nil {
		log.Fatal(err)
	}
}

// work is a line on its way. Workers take it from one channel and the writer from another that has the order of the input.
type work struct {
	n    int
	line []byte
	out  []byte
	err  error
	done chan struct{}
}

func run(input, output, base string, width int) (err error) {
	in, err := os.Open(input)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()

	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = width, width
	c := &client{http: &http.Client{Timeout: 120 * time.Second, Transport: transport}, base: base}

	todo, inOrder := make(chan *work), make(chan *work, 4*width)
	for range width {
		go func() { // ends with the process
			for w := range todo {
				w.out, w.err = c.answer(w.n, w.line)
				close(w.done)
			}
		}()
	}
	var readErr error
	go func() { // joined by the end of inOrder
		defer close(inOrder)
		readErr = read(in, todo, inOrder)
	}()
	if err := write(out, inOrder); err != nil {
		return err
	}
	return readErr
}

func read(in io.Reader, todo, inOrder chan<- *work) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 256<<10), maxLine)
	for n := 0; lines.Scan(); n++ {
		w := &work{n: n, line: bytes.Clone(lines.Bytes()), done: make(chan struct{})}
		inOrder <- w
		todo <- w
	}
	return lines.Err()
}

func write(out io.Writer, inOrder <-chan *work) error {
	buffered := bufio.NewWriterSize(out, 256<<10)
	for w := range inOrder {
		<-w.done
		if w.err != nil {
			return fmt.Errorf("line %d: %w", w.n+1, w.err)
		}
		if _, err := buffered.Write(w.out); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

type client struct {
	http *http.Client
	base string
}

// answer makes one call and returns its line of the output.
func (c *client) answer(n int, line []byte) ([]byte, error) {
	var it item
	if err := json.Unmarshal(line, &it); err != nil {
		return nil, err
	}
	id := sha256.Sum256([]byte("bareloop/" + strconv.Itoa(n)))
	req, err := http.NewRequest(http.MethodPost, c.base+it.URL, bytes.NewReader(it.Body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "bareloop")
	// Not by Set: see the header of fanout's calls, where net/http must not take it for leave to send twice.
	req.Header["idempotency-key"] = []string{fmt.Sprintf("bareloop-%x", id[:16])}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err = cmp.Or(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	out, err := json.Marshal(answered{
		ID: fmt.Sprintf("batch_req_%x", id[:16]), CustomID: it.CustomID, Response: response{StatusCode: resp.StatusCode, Body: body},
	})
	return append(out, '\n'), err
}
