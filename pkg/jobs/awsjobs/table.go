package awsjobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Attributes of an item. Tenant and created are of jobs, and of the entries that are listed by time. Open is what makes an item listed across its owners: jobs
// have it while they are not closed, entries of the registry always.
const (
	attrKey     = "pk"
	attrSort    = "sk"
	attrRev     = "rev"
	attrBy      = "by" // of the last save, random: who saved can know it again
	attrBody    = "body"
	attrExpires = "expires" // Unix seconds
	attrTenant  = "tenant"
	attrCreated = "created"
	attrOpen    = "open"
	attrDropped = "dropped" // an entry that is no more; it is kept a while for its revision

	indexTenant = "tenant"
	indexOpen   = "open"
)

// maxItem is what DynamoDB takes for an item, names and values together.
const maxItem = 400 << 10

// maxBatch is how many items DynamoDB reads in one request by their keys.
const maxBatch = 100

// TableInput describes the table of a Store, to make one for tests. A deployment makes the same, and switches the time to
// live on: attribute expires.
func TableInput(name string) *dynamodb.CreateTableInput {
	text := func(name string) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: types.ScalarAttributeTypeS}
	}
	keys := func(hash, sort string) []types.KeySchemaElement {
		return []types.KeySchemaElement{
			{AttributeName: aws.String(hash), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(sort), KeyType: types.KeyTypeRange},
		}
	}
	// Only keys are projected: a save that leaves these alone writes, and costs, nothing in the index.
	index := func(name, hash, sort string) types.GlobalSecondaryIndex {
		return types.GlobalSecondaryIndex{
			IndexName: aws.String(name), KeySchema: keys(hash, sort),
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly},
		}
	}
	return &dynamodb.CreateTableInput{
		TableName:            aws.String(name),
		BillingMode:          types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{text(attrKey), text(attrSort), text(attrTenant), text(attrCreated), text(attrOpen)},
		KeySchema:            keys(attrKey, attrSort),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{
			index(indexTenant, attrTenant, attrCreated), index(indexOpen, attrOpen, attrKey),
		},
	}
}

// item is an item of the table, or its key.
type item map[string]types.AttributeValue

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func keyOf(pk, sk string) item { return item{attrKey: text(pk), attrSort: text(sk)} }

func (i item) key() item { return item{attrKey: i[attrKey], attrSort: i[attrSort]} }

// text is "" without the attribute.
func (i item) text(name string) string {
	if v, ok := i[name].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

// number is 0 without the attribute.
func (i item) number(name string) int64 {
	if v, ok := i[name].(*types.AttributeValueMemberN); ok {
		n, _ := strconv.ParseInt(v.Value, 10, 64) // nobody but us writes it
		return n
	}
	return 0
}

// size is how many bytes DynamoDB counts for the item; of numbers it counts a few less.
func (i item) size() (n int) {
	for name, value := range i {
		n += len(name)
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			n += len(v.Value)
		case *types.AttributeValueMemberB:
			n += len(v.Value)
		case *types.AttributeValueMemberN:
			n += len(v.Value)/2 + 2
		default:
			n++
		}
	}
	return n
}

// get reads an item, consistently.
func (s *Store) get(ctx context.Context, key item) (item, error) {
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.table, Key: key, ConsistentRead: aws.Bool(true)})
	switch {
	case err != nil:
		return nil, s.failed("GetItem", err)
	case len(out.Item) == 0:
		return nil, jobs.ErrNotFound
	}
	return out.Item, nil
}

// getAll reads the items of at most maxBatch keys, consistently and in the order of the keys, and leaves out what is not
// there. What an answer left undone, since it would have been too big or too fast, is asked again at once, as long as each
// answer brings something on.
func (s *Store) getAll(ctx context.Context, keys []item) ([]item, error) {
	type id struct{ pk, sk string }
	found := map[id]item{}
	var rest []map[string]types.AttributeValue
	for _, key := range keys {
		rest = append(rest, key)
	}
	for len(rest) > 0 {
		out, err := s.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
			RequestItems: map[string]types.KeysAndAttributes{s.table: {Keys: rest, ConsistentRead: aws.Bool(true)}},
		})
		if err != nil {
			return nil, s.failed("BatchGetItem", err)
		}
		for _, there := range out.Responses[s.table] {
			i := item(there)
			found[id{i.text(attrKey), i.text(attrSort)}] = i
		}
		asked := len(rest)
		rest = out.UnprocessedKeys[s.table].Keys
		if len(rest) >= asked {
			return nil, s.failed("BatchGetItem", fmt.Errorf("it answered for none of %d keys, as it does when it is throttled", asked))
		}
	}
	items := make([]item, 0, len(found))
	for _, key := range keys {
		if i, ok := found[id{key.text(attrKey), key.text(attrSort)}]; ok {
			items = append(items, i)
		}
	}
	return items, nil
}

// query is a range of items that have the key or, with an index, the keys of items.
type query struct {
	index     string // "" = the table, consistently
	condition string
	names     map[string]string // of attributes in the condition
	values    item              // in the condition
	backwards bool
}

// page reads at most so many items from there on. Without next there are no more.
func (s *Store) page(ctx context.Context, q query, from item, limit int) (items []item, next item, err error) {
	in := &dynamodb.QueryInput{
		TableName: &s.table, KeyConditionExpression: &q.condition, ExpressionAttributeNames: q.names, ExpressionAttributeValues: q.values,
		ExclusiveStartKey: from, Limit: aws.Int32(int32(limit)), ScanIndexForward: aws.Bool(!q.backwards),
	}
	if q.index == "" {
		in.ConsistentRead = aws.Bool(true)
	} else {
		in.IndexName = &q.index
	}
	out, err := s.client.Query(ctx, in)
	if err != nil {
		return nil, nil, s.failed("Query", err)
	}
	items = make([]item, len(out.Items))
	for n, i := range out.Items {
		items[n] = i
	}
	return items, out.LastEvaluatedKey, nil
}

// put is the compare-and-swap, one request: it writes the item with its new revision if the one there has the old one, or
// with old 0 if none is there.
func (s *Store) put(ctx context.Context, i item, old, revision int64) error {
	by := s.newID()
	i = maps.Clone(i)
	i[attrRev], i[attrBy] = number(revision), text(by)
	if n := i.size(); n > maxItem {
		return jobs.Errorf(jobs.CodeLimit, "PutItem on table %s: it has %d bytes with its keys; DynamoDB takes at most %d", s.table, n, maxItem)
	}
	in := &dynamodb.PutItemInput{
		TableName: &s.table, Item: i, ConditionExpression: aws.String("attribute_not_exists(" + attrKey + ")"),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if old != 0 {
		in.ConditionExpression, in.ExpressionAttributeValues = aws.String(attrRev+" = :old"), item{":old": number(old)}
	}
	lost := false
	_, err := s.client.PutItem(ctx, in, notingLostAnswers(&lost))
	var refused *types.ConditionalCheckFailedException
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return s.failed("PutItem", err)
	case !lost:
		return jobs.ErrConflict
	}
	return s.whose(ctx, i.key(), by, revision, refused.Item)
}

// whose answers for a save that was tried again because an answer was lost, and was then refused: what is there may be the
// save itself. The refusal may or may not bring what is there.
func (s *Store) whose(ctx context.Context, key item, by string, revision int64, there item) error {
	if len(there) == 0 {
		var err error
		if there, err = s.get(ctx, key); err != nil && !errors.Is(err, jobs.ErrNotFound) {
			return fmt.Errorf("see whether a save whose answer was lost has happened: %w", err)
		}
	}
	switch {
	case there.text(attrBy) == by:
		return nil
	case there != nil && there.number(attrRev) <= revision: // revisions rise, so ours was never there
		return jobs.ErrConflict
	}
	return s.failed("PutItem", errors.New("its answer was lost and somebody saved since, so nothing is known of it"))
}

// notingLostAnswers makes an operation tell when an attempt of it may have been carried out though its answer said
// nothing: the attempt after it then meets its own work.
func notingLostAnswers(lost *bool) func(*dynamodb.Options) {
	note := middleware.FinalizeMiddlewareFunc("NoteLostAnswers", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		out, meta, err := next.HandleFinalize(ctx, in)
		var said smithy.APIError
		if err != nil && (!errors.As(err, &said) || said.ErrorFault() != smithy.FaultClient) {
			*lost = true
		}
		return out, meta, err
	})
	return func(o *dynamodb.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Finalize.Insert(note, "Retry", middleware.After)
		})
	}
}

// failed names the operation and the table. A missing permission is told with what is missing.
func (s *Store) failed(operation string, err error) error {
	var op *smithy.OperationError
	if errors.As(err, &op) {
		err = op.Err // names the operation too
	}
	err = fmt.Errorf("%s on table %s: %w", operation, s.table, err)
	var said smithy.APIError
	if errors.As(err, &said) && said.ErrorCode() == "AccessDeniedException" {
		return jobs.Errorf(jobs.CodeInternal, "%w", err).WithHint("allow dynamodb:%s on table %s and its indexes to the role of this process", operation, s.table)
	}
	return err
}
