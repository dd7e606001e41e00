package awsjobs

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// packAbove is from how many bytes on a body is kept compressed. Every KB of an item is paid for with each save, and an
// item has a limit; but the usual record, of a few KB, stays readable in the table.
const packAbove = 64 << 10

// pack makes the attribute of a body: text, or compressed bytes.
func pack(body []byte) (types.AttributeValue, error) {
	if len(body) < packAbove {
		return text(string(body)), nil
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(body); err != nil {
		return nil, fmt.Errorf("compress its body: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress its body: %w", err)
	}
	return &types.AttributeValueMemberB{Value: packed.Bytes()}, nil
}

// body is what was packed; nil without the attribute.
func (i item) body() ([]byte, error) {
	switch v := i[attrBody].(type) {
	case *types.AttributeValueMemberS:
		return []byte(v.Value), nil
	case *types.AttributeValueMemberB:
		r, err := gzip.NewReader(bytes.NewReader(v.Value))
		if err != nil {
			return nil, fmt.Errorf("expand its body: %w", err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("expand its body: %w", err)
		}
		return body, nil
	default:
		return nil, nil
	}
}
