package field;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * web in Java: serves HTTP with the JDK's server, and asks inventory through one library. The Java agent instruments
 * both, and exports spans in batches every 200 ms. The first line of the output is the port.
 */
public final class Web {
  /** Requests an item, and fails unless it gets it. */
  interface Ask {
    void ask(String url, String number) throws Exception;
  }

  private static final Map<String, Ask> CLIENTS =
      Map.of(
          "okhttp", new OkHttp()::askWithRetry,
          "resilience4j-retry-jdk", new Resilience4jRetry()::ask,
          "resilience4j-breaker-okhttp", new Resilience4jBreaker()::ask);
  private static final ExecutorService POOL = Executors.newCachedThreadPool();

  private static boolean isAnswered(Ask ask, String url, int number) {
    try {
      ask.ask(url, Integer.toString(number));
      return true;
    } catch (Exception error) {
      return false;
    }
  }

  private static boolean work(Ask ask, String shape, String inventory, String backup) {
    if (shape.equals("two")) {
      isAnswered(ask, inventory + "/items/1", 1);
      return isAnswered(ask, inventory + "/items/2", 2);
    }
    if (shape.equals("parallel")) {
      var first = CompletableFuture.supplyAsync(() -> isAnswered(ask, inventory + "/items/1", 1), POOL);
      var second = CompletableFuture.supplyAsync(() -> isAnswered(ask, inventory + "/items/1", 2), POOL);
      return first.join() & second.join();
    }
    if (isAnswered(ask, inventory + "/items/1", 1)) {
      return true;
    }
    return shape.equals("fallback") && isAnswered(ask, backup + "/items/1", 1);
  }

  private static void handle(HttpExchange exchange) throws IOException {
    Map<String, String> query = new HashMap<>();
    for (String pair : exchange.getRequestURI().getRawQuery().split("&")) {
      String[] parts = pair.split("=", 2);
      query.put(parts[0], URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
    }
    boolean done =
        work(CLIENTS.get(query.get("client")), query.get("shape"), query.get("inventory"), query.get("backup"));
    exchange.sendResponseHeaders(done ? 200 : 502, -1);
    exchange.close();
  }

  public static void main(String[] arguments) throws IOException {
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 64);
    server.setExecutor(POOL);
    server.createContext("/", Web::handle);
    server.start();
    System.out.println(server.getAddress().getPort());
  }

  private Web() {}
}
