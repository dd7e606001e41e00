package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
)

func newFile() *cobra.Command {
	var f clientFlags
	return newGroup(&f, "file", "Put, list, get and remove files on a server", `  fanout file put requests.jsonl
  fanout file list --all`,
		newFilePut(&f), newFileList(&f), newFileGet(&f), newFileRemove(&f))
}

func newFilePut(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "put INPUT", Short: "Put a file of requests on the server, plain or gzip, or stdin for -",
		Example: `  fanout file put requests.jsonl
  zcat requests.jsonl.gz | fanout file put -`,
		Args: oneInput,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			file, err := putFile(cmd.Context(), c, args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), file)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), file.ID)
			return err
		},
	}
}

// smallFile is what every front door takes in a request.
const smallFile = 4 << 20

// putFile brings a file to the server. Gzip is expanded first, since a server takes requests only as they are.
func putFile(ctx context.Context, c *batchapi.Client, path string, stdin io.Reader) (file batchapi.File, err error) {
	in, err := openInput(ctx, path, stdin, "", defaultSpoolLimits)
	if err != nil {
		return file, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return putInput(ctx, c, in)
}

// putInput brings an input to the server, a large one past the front door's limits.
func putInput(ctx context.Context, c *batchapi.Client, in *input) (batchapi.File, error) {
	content, err := os.Open(in.Path)
	if err != nil {
		return batchapi.File{}, unreadable(in.Name, err)
	}
	defer content.Close()
	name := strings.TrimSuffix(filepath.Base(in.Name), ".gz")
	if in.Bytes > smallFile {
		return c.CreateLargeFile(ctx, name, jobs.PurposeBatch, content, in.Bytes)
	}
	return c.CreateFile(ctx, name, jobs.PurposeBatch, content)
}

func newFileList(f *clientFlags) *cobra.Command {
	var l listFlags
	var purpose string
	cmd := &cobra.Command{
		Use: "list", Short: "List files, newest first",
		Example: `  fanout file list --purpose batch_output
  fanout file list --all --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			columns := []string{"ID", "BYTES", "PURPOSE", "CREATED", "EXPIRES", "NAME"}
			return list(cmd, f, l, 1000, func(q batchapi.ListQuery) (batchapi.List[batchapi.File], error) {
				q.Purpose = purpose
				return c.Files(cmd.Context(), q)
			}, columns, func(file batchapi.File) []string {
				return []string{file.ID, strconv.FormatInt(file.Bytes, 10), file.Purpose, at(&file.CreatedAt), at(&file.ExpiresAt), file.Filename}
			})
		},
	}
	l.add(cmd)
	cmd.Flags().StringVar(&purpose, "purpose", "", "only those of `PURPOSE`, such as batch or batch_output")
	return cmd
}

func newFileGet(f *clientFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "get ID", Short: "Get the bytes of a file",
		Example: `  fanout file get file-abc -o answers.jsonl
  fanout file get file-abc | head -1`,
		Args: oneArgument("file ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			body, err := c.FileContent(cmd.Context(), args[0], 0)
			if err != nil {
				return err
			}
			defer body.Close()
			return writeOutput(output, cmd.OutOrStdout(), func(w io.Writer) error {
				if _, err := io.Copy(w, body); err != nil {
					return fmt.Errorf("get file %s: %w", args[0], err)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` to write to (default stdout)")
	return cmd
}

// writeOutput writes to a file, which is seen whole or not at all, or to stdout.
func writeOutput(path string, stdout io.Writer, write func(w io.Writer) error) (err error) {
	if path == "" {
		out := bufio.NewWriterSize(stdout, 256<<10)
		return errors.Join(write(out), out.Flush())
	}
	part, err := os.CreateTemp(filepath.Dir(path), localjobs.Beside(path))
	if err != nil {
		return unwritable("--output", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part.Name()))
		}
	}()
	if err := errors.Join(write(part), part.Sync(), part.Close()); err != nil {
		return err
	}
	if err := os.Rename(part.Name(), path); err != nil {
		return unwritable("--output", path, err)
	}
	return nil
}

func newFileRemove(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "rm ID", Short: "Remove a file; a job that reads it goes on",
		Example: `  fanout file rm file-abc
  fanout file list --purpose batch_output | cut -f1 | xargs -n1 fanout file rm`,
		Args: oneArgument("file ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			d, err := c.DeleteFile(cmd.Context(), args[0])
			if err == nil && f.json {
				err = printJSON(cmd.OutOrStdout(), d)
			}
			return err
		},
	}
}
