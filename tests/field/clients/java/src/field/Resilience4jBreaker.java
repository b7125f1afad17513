package field;

import io.github.resilience4j.circuitbreaker.CircuitBreaker;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig;
import java.net.URI;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import okhttp3.OkHttpClient;

/** resilience4j CircuitBreaker 2.4 around OkHttp 5.3: opens after 3 failures for 600 ms; no retry; 500 ms each. */
final class Resilience4jBreaker {
  private static final CircuitBreakerConfig CONFIG =
      CircuitBreakerConfig.custom()
          .slidingWindowSize(3)
          .minimumNumberOfCalls(3)
          .failureRateThreshold(100)
          .waitDurationInOpenState(Duration.ofMillis(600))
          .permittedNumberOfCallsInHalfOpenState(1)
          .build();
  private final OkHttpClient client = new OkHttpClient.Builder().readTimeout(OkHttp.TIMEOUT).build();
  private final Map<String, CircuitBreaker> breakers = new ConcurrentHashMap<>();

  void ask(String url, String number) throws Exception {
    String host = URI.create(url).getAuthority();
    CircuitBreaker breaker = breakers.computeIfAbsent(host, name -> CircuitBreaker.of(name, CONFIG));
    breaker.executeCallable(
        () -> {
          OkHttp.get(client, url, number);
          return null;
        });
  }
}
