package awstest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

var dynalite = sync.OnceValues(func() (*server, error) {
	return startNode("dynalite", func(ctx context.Context, cfg aws.Config) error {
		_, err := dynamodb.NewFromConfig(cfg).ListTables(ctx, nil)
		return err
	})
})

// DynamoDB returns a client of dynalite, or of FANOUT_TEST_ENDPOINT_DYNAMODB.
func DynamoDB(t testing.TB) *dynamodb.Client {
	t.Helper()
	return dynamodb.NewFromConfig(connect(t, "DYNAMODB", dynalite))
}

// Table makes a table, as input describes one of that name, and drops it when the test ends.
func Table(t testing.TB, c *dynamodb.Client, input func(name string) *dynamodb.CreateTableInput) string {
	t.Helper()
	name := newName()
	if _, err := c.CreateTable(t.Context(), input(name)); err != nil {
		t.Fatal(err)
	}
	atEnd(t, "table "+name, func(ctx context.Context) error {
		_, err := c.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &name})
		return err
	})
	exists := dynamodb.NewTableExistsWaiter(c, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, time.Second
	})
	if err := exists.Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &name}, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	return name
}
