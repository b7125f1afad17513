package field;

import io.github.resilience4j.core.IntervalFunction;
import io.github.resilience4j.retry.Retry;
import io.github.resilience4j.retry.RetryConfig;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** resilience4j Retry 2.4 around the JDK's HttpClient: 3 attempts, 100 ms and 200 ms apart, 500 ms each. */
final class Resilience4jRetry {
  private final HttpClient client =
      HttpClient.newBuilder()
          .version(HttpClient.Version.HTTP_1_1)
          .followRedirects(HttpClient.Redirect.NORMAL)
          .build();
  private final Retry retry =
      Retry.of(
          "inventory",
          RetryConfig.<HttpResponse<String>>custom()
              .maxAttempts(3)
              .intervalFunction(IntervalFunction.ofExponentialBackoff(100, 2))
              .retryOnResult(response -> OkHttp.isRetryable(response.statusCode()))
              .retryExceptions(IOException.class)
              .build());

  void ask(String url, String number) throws Exception {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(url)).header("x-field-ask", number).timeout(OkHttp.TIMEOUT).build();
    HttpResponse<String> response =
        retry.executeCallable(() -> client.send(request, HttpResponse.BodyHandlers.ofString()));
    if (response.statusCode() >= 400) {
      throw new IOException("status " + response.statusCode());
    }
  }
}
