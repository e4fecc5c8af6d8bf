import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** RocketMQ through its remoting client: blocking sends, and one push consumer that confirms. */
final class RocketLoad implements Load.Driver {
    private final String address;
    private final String topic;
    private final DefaultMQProducer shared;
    private final LinkedBlockingQueue<byte[]> pushed = new LinkedBlockingQueue<>(20000);
    private boolean consuming;

    private RocketLoad(String address, String topic) throws Exception {
        this.address = address;
        this.topic = topic;
        shared = new DefaultMQProducer("producers");
        shared.setNamesrvAddr(address);
        shared.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        shared.setSendMsgTimeout(20000);
        shared.start();
    }

    public static void main(String[] words) throws Exception {
        RocketLoad driver = new RocketLoad(words[0], words[1]);
        Load.run(driver, Arrays.copyOfRange(words, 2, words.length));
    }

    @Override
    public Load.Producer producer(int number) {
        return bodies -> {
            List<Message> messages = new ArrayList<>(bodies.size());
            for (byte[] body : bodies) {
                messages.add(new Message(topic, body));
            }
            SendStatus status = (messages.size() == 1 ? shared.send(messages.get(0))
                : shared.send(messages)).getSendStatus();
            if (status != SendStatus.SEND_OK) {
                throw new IllegalStateException(status.toString());
            }
        };
    }

    @Override
    public synchronized Load.Consumer consumer(int number) throws Exception {
        if (!consuming) {
            consuming = true;
            DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("consumers-" + topic);
            consumer.setNamesrvAddr(address);
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            consumer.setConsumeMessageBatchMaxSize(32);
            consumer.setPullBatchSize(32);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                try {
                    for (MessageExt message : messages) {
                        pushed.put(message.getBody());
                    }
                } catch (InterruptedException stopped) {
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
        }
        return count -> {
            List<byte[]> bodies = new ArrayList<>();
            byte[] first = pushed.poll(100, TimeUnit.MILLISECONDS);
            if (first != null) {
                bodies.add(first);
                pushed.drainTo(bodies, count);
            }
            return bodies;
        };
    }
}
