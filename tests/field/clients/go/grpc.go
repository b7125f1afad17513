package main

// grpc-go with the retry policy of a service config and otelgrpc's stats handler: 3 attempts, about 100 ms apart; 500 ms
// for all of them.

import (
	"context"
	"net/url"
	"path"
	"sync"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

const serviceConfig = `{"methodConfig": [{"name": [{"service": "field.Inventory"}], "retryPolicy": {
  "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "0.1s", "backoffMultiplier": 1,
  "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]}}]}`

var (
	connections     = map[string]*grpc.ClientConn{}
	connectionsLock sync.Mutex
)

func connect(host string) (*grpc.ClientConn, error) {
	connectionsLock.Lock()
	defer connectionsLock.Unlock()
	if connection, ok := connections[host]; ok {
		return connection, nil
	}
	connection, err := grpc.NewClient(host,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()))
	if err == nil {
		connections[host] = connection
	}
	return connection, err
}

func askGRPC(ctx context.Context, address, number string) error {
	parsed, err := url.Parse(address)
	if err != nil {
		return err
	}
	connection, err := connect(parsed.Host)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-field-ask", number, "x-field-item", path.Base(parsed.Path))
	return connection.Invoke(ctx, "/field.Inventory/Get", &emptypb.Empty{}, &emptypb.Empty{})
}
