// A small HTTP server, the example that ./quickstart builds, tests and runs in a container inside a sandbox.
//
//   hello-service [PORT]        default 8080
//   GET /          "hello from HOST"
//   GET /health    "ok"
//   GET /sum?a=2&b=3   "5"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void answer(int client, int status, const char* reason, const char* body) {
  char text[1024];
  int length = snprintf(text, sizeof text,
                        "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
                        status, reason, strlen(body) + 1, body);
  for (int sent = 0; sent < length;) {
    ssize_t n = write(client, text + sent, (size_t)(length - sent));
    if (n <= 0) return;
    sent += (int)n;
  }
}

static void serve(int client) {
  char request[4096];
  size_t used = 0;
  while (used < sizeof request - 1) {
    ssize_t n = read(client, request + used, sizeof request - 1 - used);
    if (n <= 0) return;
    used += (size_t)n;
    request[used] = '\0';
    if (strstr(request, "\r\n\r\n")) break;
  }
  char path[512];
  char body[512];
  long a, b;
  if (sscanf(request, "GET %511s", path) != 1) {
    answer(client, 405, "Method Not Allowed", "only GET");
  } else if (strcmp(path, "/") == 0) {
    char host[256] = "nowhere";
    gethostname(host, sizeof host - 1);
    snprintf(body, sizeof body, "hello from %s", host);
    answer(client, 200, "OK", body);
  } else if (strcmp(path, "/health") == 0) {
    answer(client, 200, "OK", "ok");
  } else if (sscanf(path, "/sum?a=%ld&b=%ld", &a, &b) == 2) {
    snprintf(body, sizeof body, "%ld", a + b);
    answer(client, 200, "OK", body);
  } else {
    answer(client, 404, "Not Found", "not found");
  }
}

static void stop(int number) {
  (void)number;
  _exit(0);
}

int main(int argc, char** argv) {
  // As PID 1 of a container the default action of SIGTERM does not apply.
  signal(SIGTERM, stop);
  signal(SIGINT, stop);
  signal(SIGPIPE, SIG_IGN);
  int port = argc > 1 ? atoi(argv[1]) : 8080;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  if (bind(listener, (struct sockaddr*)&address, sizeof address) != 0 || listen(listener, 64) != 0) {
    perror("hello-service");
    return 1;
  }
  printf("hello-service: listening on %d\n", port);
  fflush(stdout);
  for (;;) {
    int client = accept(listener, NULL, NULL);
    if (client < 0) continue;
    serve(client);
    close(client);
  }
}
