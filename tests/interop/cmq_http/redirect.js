// Node's SDK has the service's host written into it: lead its connections to us, and leave what it sends as it is.
const http = require('http');
const net = require('net');

http.Agent.prototype.createConnection = (options, done) =>
  net.createConnection({host: '127.0.0.1', port: Number(process.env.CMQ_PORT)}, done);
