package main

// go-retryablehttp 0.7 over an otelhttp transport: 3 attempts, 100 ms and 200 ms apart, 500 ms each; 429 and 5xx are
// tried again.

import (
	"context"
	"io"
	"net/http"

	"github.com/hashicorp/go-retryablehttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

var retryable = newRetryable()

func newRetryable() *http.Client {
	client := retryablehttp.NewClient()
	client.Logger = nil
	client.RetryMax = attempts - 1
	client.RetryWaitMin, client.RetryWaitMax = backoffs, 2*backoffs
	client.HTTPClient.Timeout = timeout
	client.HTTPClient.Transport = otelhttp.NewTransport(http.DefaultTransport)
	return client.StandardClient()
}

func askRetryable(ctx context.Context, url, number string) error {
	response, err := get(ctx, retryable, url, number)
	return check(response, err)
}

func check(response *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.ReadAll(response.Body); err != nil {
		return err
	}
	if response.StatusCode >= 400 {
		return statusError(response.StatusCode)
	}
	return nil
}

type statusError int

func (e statusError) Error() string { return http.StatusText(int(e)) }
