package main

// cenkalti/backoff 5 around net/http with otelhttp: 3 attempts, 100 ms apart, 500 ms each; 429, 5xx and failures to
// read are tried again. An INTERNAL span of the program's own is around all attempts.

import (
	"context"
	"errors"
	"net/http"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
)

var plain = &http.Client{Timeout: timeout, Transport: otelhttp.NewTransport(http.DefaultTransport)}

func askBackoff(ctx context.Context, url, number string) error {
	ctx, span := otel.Tracer("web").Start(ctx, "ask inventory")
	defer span.End()
	_, err := backoff.Retry(ctx, func() (bool, error) {
		response, err := get(ctx, plain, url, number)
		err = check(response, err)
		var status statusError
		if errors.As(err, &status) && status < 500 && status != http.StatusTooManyRequests {
			return false, backoff.Permanent(err)
		}
		return err == nil, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(backoffs)), backoff.WithMaxTries(attempts))
	return err
}
