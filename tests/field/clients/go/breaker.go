package main

// gobreaker 2 around net/http with otelhttp: opens after 3 failures for 600 ms; no retry; 500 ms for each attempt.

import (
	"context"
	"net/url"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

var breakers sync.Map

func askBreaker(ctx context.Context, address, number string) error {
	parsed, err := url.Parse(address)
	if err != nil {
		return err
	}
	breaker, _ := breakers.LoadOrStore(parsed.Host, gobreaker.NewCircuitBreaker[bool](gobreaker.Settings{
		Timeout:     600 * time.Millisecond,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 3 },
	}))
	_, err = breaker.(*gobreaker.CircuitBreaker[bool]).Execute(func() (bool, error) {
		response, err := get(ctx, plain, address, number)
		return true, check(response, err)
	})
	return err
}
