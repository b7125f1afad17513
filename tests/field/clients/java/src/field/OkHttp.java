package field;

import java.io.IOException;
import java.time.Duration;
import okhttp3.Interceptor;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;

/** OkHttp 5.3: 3 attempts by an interceptor, 100 ms apart, 500 ms each; 429, 5xx and failures are tried again. */
final class OkHttp {
  static final Duration TIMEOUT = Duration.ofMillis(500);
  private final OkHttpClient client =
      new OkHttpClient.Builder().readTimeout(TIMEOUT).addInterceptor(OkHttp::retry).build();

  private static Response retry(Interceptor.Chain chain) throws IOException {
    for (int attempt = 1; ; attempt++) {
      try {
        Response response = chain.proceed(chain.request());
        if (attempt == 3 || !isRetryable(response.code())) {
          return response;
        }
        response.close();
      } catch (IOException error) {
        if (attempt == 3) {
          throw error;
        }
      }
      try {
        Thread.sleep(100);
      } catch (InterruptedException error) {
        throw new IOException(error);
      }
    }
  }

  static boolean isRetryable(int status) {
    return status == 429 || status >= 500;
  }

  void askWithRetry(String url, String number) throws IOException {
    get(client, url, number);
  }

  static void get(OkHttpClient client, String url, String number) throws IOException {
    Request request = new Request.Builder().url(url).header("x-field-ask", number).build();
    try (Response response = client.newCall(request).execute()) {
      response.body().bytes();
      if (response.code() >= 400) {
        throw new IOException("status " + response.code());
      }
    }
  }
}
