// web in Go: serves HTTP through otelhttp, and asks inventory through one library.
// Usage: web CLIENT. The first line of its output is its port. Spans are exported in batches every 200 ms.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

const (
	attempts = 3 // in all
	backoffs = 100 * time.Millisecond
	timeout  = 500 * time.Millisecond
)

// An ask requests an item, and fails unless it gets it.
type ask func(ctx context.Context, url, number string) error

var clients = map[string]ask{
	"retryablehttp": askRetryable,
	"backoff":       askBackoff,
	"gobreaker":     askBreaker,
	"grpc-go":       askGRPC,
}

func get(ctx context.Context, client *http.Client, url, number string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("x-field-ask", number)
	return client.Do(request)
}

func work(ctx context.Context, do ask, shape, inventory, backup string) bool {
	answered := func(url, number string) bool { return do(ctx, url, number) == nil }
	switch shape {
	case "two":
		answered(inventory+"/items/1", "1")
		return answered(inventory+"/items/2", "2")
	case "parallel":
		var group sync.WaitGroup
		var done [2]bool
		for i := range done {
			group.Go(func() { done[i] = answered(inventory+"/items/1", fmt.Sprint(i+1)) })
		}
		group.Wait()
		return done[0] && done[1]
	}
	if answered(inventory+"/items/1", "1") {
		return true
	}
	return shape == "fallback" && answered(backup+"/items/1", "1")
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(os.Getenv("FIELD_OTLP")+"/v1/traces"))
	if err != nil {
		panic(err)
	}
	provider := trace.NewTracerProvider(
		trace.WithBatcher(exporter, trace.WithBatchTimeout(200*time.Millisecond)),
		trace.WithResource(resource.NewSchemaless(attribute.String("service.name", "web"))),
	)
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})

	do := clients[os.Args[1]]
	handler := func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if !work(r.Context(), do, query.Get("shape"), query.Get("inventory"), query.Get("backup")) {
			w.WriteHeader(http.StatusBadGateway)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := &http.Server{Handler: otelhttp.NewHandler(http.HandlerFunc(handler), "run")}
	go server.Serve(listener)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	<-ctx.Done()
	server.Shutdown(context.Background())
	provider.Shutdown(context.Background())
}
