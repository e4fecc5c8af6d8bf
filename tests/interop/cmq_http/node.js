// Scenarios for the Node SDK of CMQ: node -r ./redirect.js node.js ID SECRET SCENARIO, with its port in CMQ_PORT.
const assert = require('assert');
const {randomBytes} = require('crypto');
const {CMQ} = require('cmq-sdk');

const [secretId, secretKey, scenario] = process.argv.slice(2);
const TEXT = 'hello 世界 +%&=_@ "quoted" \\ \u2028 \u{1F600} end';
const name = () => 'no' + randomBytes(6).toString('hex');
const client = (signatureMethod = 'HmacSHA256') => CMQ.NEW({
  path: '/v2/index.php', signatureMethod, extranet: false, secretId, secretKey, region: 'gz',
});
const good = async (call) => {
  const said = await call;
  assert.strictEqual(said.code, 0, JSON.stringify(said));
  assert.strictEqual(typeof said.requestId, 'string');
  return said;
};
const refused = async (call, code, text) => {
  const said = await call;
  assert.strictEqual(said.code, code, JSON.stringify(said));
  assert.ok(said.message.startsWith(text), said.message);
};

const scenarios = {
  async queues(cmq) {
    const queueName = name();
    await good(cmq.createQueue({queueName, visibilityTimeout: 7, rewindSeconds: 60}));
    await refused(cmq.createQueue({queueName}), 4460, '(10210)queue is already existed');
    const told = await good(cmq.getQueueAttributes({queueName}));
    assert.strictEqual(told.visibilityTimeout, 7);
    await good(cmq.setQueueAttributes({queueName, visibilityTimeout: 9}));
    const listed = await good(cmq.listQueue({searchWord: queueName}));
    assert.deepStrictEqual(listed.queueList.map((one) => one.queueName), [queueName]);
    await good(cmq.deleteQueue({queueName}));
    await refused(cmq.getQueueAttributes({queueName}), 4440, '(10100)');
  },

  async messages(cmq) {
    const queueName = name();
    const began = Math.floor(Date.now() / 1000);
    await good(cmq.createQueue({queueName, rewindSeconds: 3600}));
    await refused(cmq.receiveMessage({queueName, pollingWaitSeconds: 0}), 7000, '(10200)no message');
    const sent = await good(cmq.sendMessage({queueName, msgBody: TEXT}));
    const got = await good(cmq.receiveMessage({queueName, pollingWaitSeconds: 3}));
    assert.deepStrictEqual([got.msgBody, got.msgId, got.dequeueCount], [TEXT, sent.msgId, 1]);
    await good(cmq.deleteMessage({queueName, receiptHandle: got.receiptHandle}));
    await refused(cmq.deleteMessage({queueName, receiptHandle: got.receiptHandle}), 4430, '(10260)');
    const many = await good(cmq.batchSendMessage({queueName, msgBody: ['a', 'b', 'c']}));
    assert.strictEqual(many.msgList.length, 3);
    const handles = [];
    while (handles.length < 3) {
      const batch = await good(cmq.batchReceiveMessage({queueName, numOfMsg: 16, pollingWaitSeconds: 3}));
      handles.push(...batch.msgInfoList.map((one) => one.receiptHandle));
    }
    await good(cmq.batchDeleteMessage({queueName, receiptHandle: handles}));
    await refused(cmq.batchDeleteMessage({queueName, receiptHandle: handles}), 6020, '(10290)');
    await good(cmq.rewindQueue({queueName, startConsumeTime: began - 1}));
    await good(cmq.receiveMessage({queueName, pollingWaitSeconds: 3}));
    await refused(cmq.sendMessage({queueName: name(), msgBody: 'x'}), 4440, '(10100)');
  },

  messages_sha1: () => scenarios.messages(client('HmacSHA1')),

  async refusals(cmq) {
    const queueName = name();
    await good(cmq.createQueue({queueName}));
    const many = Array(17).fill('x');
    await refused(cmq.createQueue({queueName: '1st'}), 4000, '(10020)');
    await refused(cmq.createQueue({queueName: name(), visibilityTimeout: 43201}), 4000, '(10350)');
    await refused(cmq.setQueueAttributes({queueName, visibilityTimeout: 43201}), 4000, '(10350)');
    await refused(cmq.rewindQueue({queueName, startConsumeTime: 1}), 6050, '(10670)');
    await refused(cmq.sendMessage({queueName, msgBody: 'x'.repeat(65537)}), 4400, '(10230)');
    await refused(cmq.batchSendMessage({queueName, msgBody: many}), 4000, '(10370)');
    await refused(cmq.batchReceiveMessage({queueName, numOfMsg: 17, pollingWaitSeconds: 0}), 4000, '(10370)');
    await refused(cmq.deleteMessage({queueName, receiptHandle: 'no-number'}), 4000, '(10470)');
    await good(cmq.sendMessage({queueName, msgBody: 'x'}));
    const held = await good(cmq.receiveMessage({queueName, pollingWaitSeconds: 3}));
    await refused(cmq.batchDeleteMessage({queueName, receiptHandle: [held.receiptHandle, '12345']}), 6010, '(10150)');
    const later = await good(cmq.batchSendMessage({queueName, msgBody: ['a', 'b'], delaySeconds: 1000}));
    assert.strictEqual(later.msgList.length, 2);
    assert.strictEqual((await good(cmq.getQueueAttributes({queueName}))).delayMsgNum, 2);
    const gone = name();
    const calls = {
      receiveMessage: {pollingWaitSeconds: 0}, batchReceiveMessage: {numOfMsg: 1, pollingWaitSeconds: 0},
      deleteMessage: {receiptHandle: '1'}, batchDeleteMessage: {receiptHandle: ['1']}, sendMessage: {msgBody: 'x'},
      batchSendMessage: {msgBody: ['x']}, deleteQueue: {}, rewindQueue: {startConsumeTime: 1}, setQueueAttributes: {},
    };
    for (const [call, fields] of Object.entries(calls)) {
      await refused(cmq[call]({queueName: gone, ...fields}), 4440, '(10100)');
    }
    const topicCalls = {
      publishMessage: {msgBody: 'x'}, batchPublishMessage: {msgBody: ['x']}, setTopicAttributes: {maxMsgSize: 2048},
      getTopicAttributes: {}, deleteTopic: {}, unsubscribe: {subscriptionName: name()},
      subscribe: {subscriptionName: name(), protocol: 'queue', endpoint: queueName},
      getSubscriptionAttributes: {subscriptionName: name()}, setSubscriptionAttributes: {subscriptionName: name()},
      clearSubscriptionFilterTags: {subscriptionName: name()},
    };
    for (const [call, fields] of Object.entries(topicCalls)) {
      await refused(cmq[call]({topicName: gone, ...fields}), 4440, '(10600)');
    }
    assert.strictEqual((await good(cmq.listSubscriptionByTopic({topicName: gone}))).totalCount, 0);
  },

  async redelivery(cmq) {
    const queueName = name();
    await good(cmq.createQueue({queueName, visibilityTimeout: 1}));
    const sent = await good(cmq.sendMessage({queueName, msgBody: 'again', delaySeconds: 1}));
    await refused(cmq.receiveMessage({queueName, pollingWaitSeconds: 0}), 7000, '(10200)');
    const first = await good(cmq.receiveMessage({queueName, pollingWaitSeconds: 20}));
    const second = await good(cmq.receiveMessage({queueName, pollingWaitSeconds: 20}));
    assert.deepStrictEqual([first.msgId, second.msgId, second.dequeueCount], [sent.msgId, sent.msgId, 2]);
    assert.strictEqual(second.firstDequeueTime, first.firstDequeueTime);
    await refused(cmq.deleteMessage({queueName, receiptHandle: first.receiptHandle}), 4430, '(10260)');
  },

  async signatures() {
    const other = CMQ.NEW({
      path: '/v2/index.php', signatureMethod: 'HmacSHA256', extranet: false, secretId, secretKey: 'x' + secretKey, region: 'gz',
    });
    await refused(other.listQueue({}), 4100, '(10030)');
    const nobody = CMQ.NEW({
      path: '/v2/index.php', signatureMethod: 'HmacSHA1', extranet: false, secretId: 'AKIDnobody', secretKey, region: 'gz',
    });
    await refused(nobody.listTopic({}), 4100, '(10270)');
  },

  // What find looks for, in a server that was killed meanwhile.
  async leave(cmq) {
    const queueName = 'left-node';
    await good(cmq.createQueue({queueName}));
    await good(cmq.batchSendMessage({queueName, msgBody: ['a', 'b']}));
    const {receiptHandle} = await good(cmq.receiveMessage({queueName, pollingWaitSeconds: 3}));
    await good(cmq.deleteMessage({queueName, receiptHandle}));
  },

  async find(cmq) {
    const queueName = 'left-node';
    assert.strictEqual((await good(cmq.receiveMessage({queueName, pollingWaitSeconds: 3}))).msgBody, 'b');
    await refused(cmq.receiveMessage({queueName, pollingWaitSeconds: 0}), 7000, '(10200)');
  },

  async topics(cmq) {
    const topicName = name();
    const queueName = name();
    const subscriptionName = name();
    await good(cmq.createQueue({queueName}));
    await good(cmq.createTopic({topicName, filterType: 1}));
    await good(cmq.setTopicAttributes({topicName, maxMsgSize: 2048}));
    assert.strictEqual((await good(cmq.getTopicAttributes({topicName}))).maxMsgSize, 2048);
    assert.strictEqual((await good(cmq.listTopic({searchWord: topicName}))).totalCount, 1);
    await good(cmq.subscribe({
      topicName, subscriptionName, protocol: 'queue', endpoint: queueName, notifyContentFormat: 'SIMPLIFIED',
      filterTag: ['red'],
    }));
    await good(cmq.publishMessage({topicName, msgBody: TEXT, msgTag: ['red', 'green']}));
    await good(cmq.batchPublishMessage({topicName, msgBody: ['x', 'y'], msgTag: ['blue']}));
    const got = await good(cmq.receiveMessage({queueName, pollingWaitSeconds: 3}));
    assert.strictEqual(got.msgBody, TEXT);
    await refused(cmq.receiveMessage({queueName, pollingWaitSeconds: 0}), 7000, '(10200)');
    const told = await good(cmq.getSubscriptionAttributes({topicName, subscriptionName}));
    assert.deepStrictEqual([told.filterTag, told.endpoint, typeof told.topicOwner], [['red'], queueName, 'string']);
    await good(cmq.setSubscriptionAttributes({topicName, subscriptionName, filterTag: ['blue']}));
    await good(cmq.clearSubscriptionFilterTags({topicName, subscriptionName}));
    assert.strictEqual((await good(cmq.listSubscriptionByTopic({topicName}))).totalCount, 1);
    await refused(cmq.deleteTopic({topicName}), 4000, '(10540)');
    await good(cmq.unsubscribe({topicName, subscriptionName}));
    await good(cmq.deleteTopic({topicName}));
  },

  async routing(cmq) {
    const topicName = name();
    const queueName = name();
    await good(cmq.createQueue({queueName}));
    await good(cmq.createTopic({topicName, filterType: 2}));
    await good(cmq.subscribe({
      topicName, subscriptionName: name(), protocol: 'queue', endpoint: queueName, bindingKey: ['1.#.0', '*.b'],
    }));
    for (const routingKey of ['1.0', 'a.b', 'b']) {
      await good(cmq.publishMessage({topicName, msgBody: routingKey, routingKey}));
    }
    await good(cmq.batchPublishMessage({topicName, msgBody: ['b1', 'b2'], routingKey: 'c.b'}));
    await refused(cmq.publishMessage({topicName, msgBody: 'x'}), 4000, '(10700)');
    const got = await good(cmq.batchReceiveMessage({queueName, numOfMsg: 16, pollingWaitSeconds: 3}));
    assert.deepStrictEqual(got.msgInfoList.map((one) => one.msgBody).sort(), ['1.0', 'a.b', 'b1', 'b2']);
  },
};

scenarios[scenario](client()).catch((error) => {
  console.error(error);
  process.exit(1);
});
