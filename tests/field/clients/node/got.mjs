// got 14 with its own retry (over node:http): 3 attempts, 100 ms apart, 500 ms each; 429 and 5xx are tried again.
import got from 'got';

export const ask = (url, headers) =>
  got(url, {
    headers,
    timeout: { request: 500 },
    retry: { limit: 2, calculateDelay: ({ computedValue }) => computedValue && 100 },
  });
