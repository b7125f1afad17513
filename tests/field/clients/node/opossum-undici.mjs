// opossum 9 around undici's fetch: opens after 3 failures for 600 ms; no retry; 500 ms for each attempt.
import CircuitBreaker from 'opossum';
import { fetch } from 'undici';

async function once(url, headers) {
  const response = await fetch(url, { headers, signal: AbortSignal.timeout(500) });
  await response.text();
  if (!response.ok) throw new Error(`status ${response.status}`);
}

const breakers = new Map();

export function ask(url, headers) {
  const { host } = new URL(url);
  if (!breakers.has(host)) {
    const options = { timeout: false, volumeThreshold: 3, errorThresholdPercentage: 99, resetTimeout: 600 };
    breakers.set(host, new CircuitBreaker(once, options));
  }
  return breakers.get(host).fire(url, headers);
}
