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
    const got = await good(cmq.batchReceiveMessage({queueName, numOfMsg: 16, pollingWaitSeconds: 3}));
    assert.deepStrictEqual(got.msgInfoList.map((one) => one.msgBody).sort(), ['1.0', 'a.b']);
  },
};

scenarios[scenario](client()).catch((error) => {
  console.error(error);
  process.exit(1);
});
