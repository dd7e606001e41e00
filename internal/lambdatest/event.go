package lambdatest

import (
	"encoding/json"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// event is what the event source hands over: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html.
type event struct {
	Records []record `json:"Records"`
}

type record struct {
	MessageID              string               `json:"messageId"`
	ReceiptHandle          string               `json:"receiptHandle"`
	Body                   string               `json:"body"`
	Attributes             map[string]string    `json:"attributes"`
	MessageAttributes      map[string]attribute `json:"messageAttributes"`
	MD5OfBody              string               `json:"md5OfBody"`
	MD5OfMessageAttributes string               `json:"md5OfMessageAttributes,omitempty"`
	EventSource            string               `json:"eventSource"`
	EventSourceARN         string               `json:"eventSourceARN"`
	AWSRegion              string               `json:"awsRegion"`
}

type attribute struct {
	StringValue      *string  `json:"stringValue,omitempty"`
	BinaryValue      []byte   `json:"binaryValue,omitempty"`
	StringListValues []string `json:"stringListValues"`
	BinaryListValues [][]byte `json:"binaryListValues"`
	DataType         string   `json:"dataType"`
}

// newEvent is the payload for messages of a queue.
func newEvent(queueARN string, batch []types.Message) ([]byte, error) {
	e := event{Records: make([]record, len(batch))}
	for n, m := range batch {
		r := record{
			MessageID: aws.ToString(m.MessageId), ReceiptHandle: aws.ToString(m.ReceiptHandle), Body: aws.ToString(m.Body),
			Attributes: m.Attributes, MessageAttributes: map[string]attribute{},
			MD5OfBody: aws.ToString(m.MD5OfBody), MD5OfMessageAttributes: aws.ToString(m.MD5OfMessageAttributes),
			EventSource: "aws:sqs", EventSourceARN: queueARN, AWSRegion: region,
		}
		for name, a := range m.MessageAttributes {
			r.MessageAttributes[name] = attribute{
				StringValue: a.StringValue, BinaryValue: a.BinaryValue,
				StringListValues: []string{}, BinaryListValues: [][]byte{}, DataType: aws.ToString(a.DataType),
			}
		}
		e.Records[n] = r
	}
	return json.Marshal(e)
}
