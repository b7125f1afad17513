// axios 1 with axios-retry 4.5 (over node:http): 3 attempts, 100 ms apart, 500 ms each; 429 and 5xx are tried again.
import axios from 'axios';
import axiosRetry from 'axios-retry';

const client = axios.create({ timeout: 500, proxy: false });
axiosRetry(client, {
  retries: 2,
  shouldResetTimeout: true,
  retryDelay: () => 100,
  retryCondition: (error) =>
    !error.response || error.response.status === 429 || error.response.status >= 500,
});

export const ask = (url, headers) => client.get(url, { headers });
