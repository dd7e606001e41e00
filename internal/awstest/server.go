package awstest

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// startWithin is how long a server may take from its start to its first answer.
const startWithin = 30 * time.Second

const region = "us-east-1"

// server is one that answers.
type server struct {
	*process
	config aws.Config
	data   string
}

// newConfig is for a server on a port of 127.0.0.1. Nothing is read from the environment, and the connections are those of
// all its clients.
func newConfig(port int, key, secret string) aws.Config {
	return aws.Config{
		Region:       region,
		BaseEndpoint: aws.String("http://127.0.0.1:" + strconv.Itoa(port)),
		Credentials:  credentials.NewStaticCredentialsProvider(key, secret, ""),
		HTTPClient:   awshttp.NewBuildableClient(),
		// As LoadDefaultConfig has it, so that tests send and check what the functions do.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	}
}

// connect returns how to reach the service: at the endpoint that the environment names, with the credentials found there,
// else at the server of this test process, which start starts or has started.
func connect(t testing.TB, service string, start func() (*server, error)) aws.Config {
	t.Helper()
	if endpoint := os.Getenv("FANOUT_TEST_ENDPOINT_" + service); endpoint != "" {
		cfg, err := config.LoadDefaultConfig(t.Context())
		if err != nil {
			t.Fatalf("find the credentials for %s: %v", endpoint, err)
		}
		cfg.BaseEndpoint = &endpoint
		if cfg.Region == "" {
			cfg.Region = region
		}
		return cfg
	}
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.ended:
			t.Error(s.lastWords(fmt.Errorf("the server of %s has ended (%w)", service, errors.Join(errEnded, s.err))))
		default:
		}
	})
	return s.config
}

// startNode starts a server of the npm packages.
func startNode(name string, probe func(context.Context, aws.Config) error) (*server, error) {
	ctx := context.Background() // it lives longer than the test that is the first to ask
	dir, err := installNodeServers(ctx)
	if err != nil {
		return nil, err
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	port := l.Addr().(*net.TCPAddr).Port
	s, err := startServer(ctx, newConfig(port, "test", "test"), command{
		args: []string{node(dir), "--input-type=commonjs", "-e", serveScript, name, strconv.Itoa(port)}, dir: dir,
		env: bare(), socket: socket,
	}, func() { _, _ = l.Close(), socket.Close() }, probe)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return s, nil
}

// startVersitygw starts the S3 server. It cannot be handed a socket, so somebody may take the port that was free; its
// credentials are new each time, so that nobody is taken for it.
func startVersitygw(probe func(context.Context, aws.Config) error) (*server, error) {
	ctx := context.Background()
	bin, err := installVersitygw(ctx)
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		data, err := os.MkdirTemp(cache, "s3-")
		if err != nil {
			return nil, err
		}
		key, secret := crand.Text(), crand.Text()
		s, err := startServer(ctx, newConfig(port, key, secret), command{
			args: []string{filepath.Join(bin, "versitygw"), "--port", "127.0.0.1:" + strconv.Itoa(port), "--quiet", "--keep-alive", "posix", data},
			dir:  data, env: append(bare(), "ROOT_ACCESS_KEY="+key, "ROOT_SECRET_KEY="+secret), data: data,
		}, func() {}, probe)
		if err == nil {
			s.data = data
			return s, nil
		}
		if try == 5 || !strings.Contains(err.Error(), "address already in use") {
			return nil, fmt.Errorf("start versitygw: %w", err)
		}
	}
}

// startServer runs a server and returns it when it has answered. started is called when the process has all it inherits.
func startServer(ctx context.Context, cfg aws.Config, cmd command, started func(), probe func(context.Context, aws.Config) error) (*server, error) {
	p, err := run(cmd)
	started()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startWithin, fmt.Errorf("no answer within %s", startWithin))
	defer cancel()
	once := cfg.Copy()
	once.RetryMaxAttempts = 1
	if err := p.untilReady(ctx, func(ctx context.Context) error { return probe(ctx, once) }); err != nil {
		return nil, err
	}
	return &server{process: p, config: cfg}, nil
}

// bare is the environment of a server: nothing that could configure it by accident.
func bare() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
}

func freePort() (int, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// newName is of a table, queue or bucket that no test had before.
func newName() string { return "fanout-test-" + strings.ToLower(crand.Text()) }

// atEnd runs drop when the test ends, with a context that is still good then.
func atEnd(t testing.TB, what string, drop func(context.Context) error) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := drop(ctx); err != nil {
			t.Errorf("drop %s: %v", what, err)
		}
	})
}
