// linear-ptm [PORT]: serves PtmService on loopback, on a free port if none is given

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <csignal>
#include <cstdlib>
#include <iostream>

#include "service.h"

int main(int argc, char** argv) {
  // Blocked before any thread starts, so that every thread leaves these signals to sigwait.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  LinearPtm service;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  const std::string address = std::string("127.0.0.1:") + (argc > 1 ? argv[1] : "0");
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  // Otherwise a second server could share the port of the first.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) {
    std::cerr << "linear-ptm: no such port, or it is taken\n";
    return EXIT_FAILURE;
  }
  server->GetHealthCheckService()->SetServingStatus(pb::PtmService::service_full_name(), true);
  std::cout << "linear model listens on 127.0.0.1:" << port << std::endl;

  int signal = 0;
  sigwait(&ends, &signal);
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
}
