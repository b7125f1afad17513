// p-retry 7 around the built-in fetch: 3 attempts, 100 ms and 200 ms apart, 500 ms each; 429 and 5xx are tried again.
import pRetry, { AbortError } from 'p-retry';

async function once(url, headers) {
  let response;
  try {
    response = await fetch(url, { headers, signal: AbortSignal.timeout(500) });
    await response.text();
  } catch (error) {
    throw new Error('no response', { cause: error }); // p-retry does not repeat every TypeError
  }
  if (response.status === 429 || response.status >= 500) throw new Error(`status ${response.status}`);
  if (!response.ok) throw new AbortError(`status ${response.status}`);
}

export const ask = (url, headers) => pRetry(() => once(url, headers), { retries: 2, minTimeout: 100, factor: 2 });
